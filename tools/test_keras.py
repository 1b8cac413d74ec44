"""The round trip of a Keras model through mpo, and mpo's inspection against h5dump. Called by tools/test-keras."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import h5py
import keras
import numpy as np
from keras.src.legacy.saving import legacy_h5_format


def classifier():
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(96),
        ]
    )


def reader():
    inputs = keras.Input((10,), dtype="int32")
    hidden = keras.layers.Embedding(97, 64)(inputs)
    hidden = keras.layers.MultiHeadAttention(4, 16)(hidden, hidden)
    hidden = keras.layers.LSTM(64)(hidden)
    return keras.Model(inputs, keras.layers.Dense(80)(hidden))


def run(*arguments):
    result = subprocess.run(arguments, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, arguments))}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def shapes_of_dump(path):
    """Name and shape of every dataset of numbers, as h5dump says."""
    shapes = {}
    for line in run("h5ls", "-r", str(path)).splitlines():
        match = re.fullmatch(r"/(.*?)\s+Dataset \{(.*)\}", line)
        if match:
            name = re.sub(r"\\(.)", r"\1", match[1])
            sizes = match[2].split("/")[0]
            shapes[name] = [] if sizes == "SCALAR" else [int(size) for size in sizes.split(", ")]
    return shapes


def main():
    mpo = sys.argv[1]
    keras.utils.set_random_seed(11)
    random = np.random.default_rng(5)
    worst = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for kind, model, inputs in [
            ("classifier", classifier(), random.standard_normal((5, 12, 12, 3)).astype(np.float32)),
            ("reader", reader(), random.integers(0, 97, (5, 10))),
        ]:
            expected = np.asarray(model.predict(inputs, verbose=0))
            for ending in [".h5", ".keras", ".weights.h5", ".legacy_weights.h5"]:
                saved, converted, restored = (folder / f"{kind}{part}" for part in [ending, ".mpo", "_restored" + ending])
                if ending == ".weights.h5":
                    model.save_weights(saved)
                elif ending == ".legacy_weights.h5":
                    with h5py.File(saved, "w") as file:
                        legacy_h5_format.save_weights_to_hdf5_group(file, model)
                else:
                    model.save(saved)
                run(mpo, "convert", "--lossless", "--force", str(saved), "-o", str(converted))
                run(mpo, "verify", str(converted), "--against", str(saved))
                run(mpo, "restore", str(converted), "-o", str(restored))
                if ending.endswith("weights.h5"):
                    loaded = keras.models.clone_model(model)
                    if ending == ".weights.h5":
                        loaded.load_weights(restored)
                    else:
                        with h5py.File(restored) as file:
                            legacy_h5_format.load_weights_from_hdf5_group(file, loaded)
                else:
                    loaded = keras.models.load_model(restored)
                error = np.abs(np.asarray(loaded.predict(inputs, verbose=0)) - expected).max()
                worst = max(worst, error)
                if not error <= 1e-5:
                    sys.exit(f"{kind}{ending}: the restored model predicts with an error of {error}")
                if ending != ".keras":
                    inspected = json.loads(run(mpo, "inspect", "--json", str(restored)))["tensors"]
                    found = {tensor["name"]: tensor["shape"] for tensor in inspected}
                    if found != shapes_of_dump(saved):
                        sys.exit(f"{kind}{ending}: mpo inspect and h5ls differ")
                    run("h5diff", "--delta=1e-5", str(saved), str(restored))
    print(f"Keras {keras.__version__}: 2 models in 4 formats restored; largest error of a prediction {worst:.1e}")


def tagger():
    inputs = keras.Input((10,), dtype="int32")
    hidden = keras.layers.Embedding(200, 64, mask_zero=True)(inputs)
    hidden = keras.layers.LayerNormalization()(keras.layers.Dense(128, activation="relu")(hidden))
    return keras.Model(inputs, keras.layers.Dense(96, use_bias=False)(hidden))


def layers_made_of_cores(mpo):
    """A model's layers become layers made of cores, which compute the same, are trained, saved and loaded."""
    from mpo_checkpoint import CheckpointError
    from mpo_checkpoint.keras import MPODense, MPOEmbedding, with_cores

    keras.utils.set_random_seed(12)
    random = np.random.default_rng(6)
    model, inputs = tagger(), random.integers(0, 200, (16, 10))
    targets = random.standard_normal((16, 10, 96))
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        model.save(folder / "m.keras")
        for options in (["--structure", "svd"], ["--structure", "chain", "--gauge", "spectral"]):
            run(mpo, "convert", str(folder / "m.keras"), "-o", str(folder / "m.mpo"), "--ratio", "0.6", "--force", *options)
            run(mpo, "restore", str(folder / "m.mpo"), "-o", str(folder / "r.keras"), "--force")
            restored = keras.models.load_model(folder / "r.keras")
            for trainable in ("all", "auxiliary"):
                made = with_cores(model, folder / "m.mpo", trainable)
                kinds = [type(layer) for layer in made.layers]
                if kinds.count(MPODense) != 2 or kinds.count(MPOEmbedding) != 1:
                    sys.exit(f"{options}: layers are {kinds}")
                error = np.abs(made.predict(inputs, verbose=0) - restored.predict(inputs, verbose=0)).max()
                if not error <= 1e-5:
                    sys.exit(f"{options}: layers made of cores predict with an error of {error}")
                centre = made.layers[1].cores[made.layers[1].structure["operators"][0]["central"]]
                frozen = np.asarray(centre).copy()
                made.compile("adam", "mse")
                before = made.evaluate(inputs, targets, verbose=0)
                made.fit(inputs, targets, epochs=2, verbose=0)
                if not made.evaluate(inputs, targets, verbose=0) < before:
                    sys.exit(f"{options}: training does not lower the loss")
                if (trainable == "auxiliary") != np.array_equal(frozen, np.asarray(centre)):
                    sys.exit(f"{options}: the central core of {trainable} is trained, or it is not")
                made.save(folder / "t.keras")
                loaded = keras.models.load_model(folder / "t.keras")
                if np.abs(loaded.predict(inputs, verbose=0) - made.predict(inputs, verbose=0)).max() > 1e-6:
                    sys.exit(f"{options}: the saved model predicts otherwise")
        try:
            with_cores(classifier(), folder / "m.mpo")
        except CheckpointError as error:
            if "another architecture" not in str(error):
                raise
        else:
            sys.exit("a model of another architecture is taken")
    print("Keras: Dense and Embedding made of cores, trained and saved")


if __name__ == "__main__":
    main()
    layers_made_of_cores(sys.argv[1])
