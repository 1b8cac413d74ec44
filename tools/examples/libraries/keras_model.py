"""Converts a Keras model, trains it with layers made of cores, and saves it. KERAS_BACKEND chooses the backend.

usage: python keras_model.py PATH_OF_THE_PROGRAM_MPO
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from mpo_checkpoint.keras import with_cores

if len(sys.argv) != 2:
    sys.exit(__doc__)
mpo, random = sys.argv[1], np.random.default_rng(0)
keras.utils.set_random_seed(0)
inputs = keras.Input((64,))
hidden = keras.layers.Dense(256, activation="relu")(inputs)
dense = keras.Model(inputs, keras.layers.Dense(128)(hidden))
with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    dense.save(folder / "dense.keras")
    command = [mpo, "convert", folder / "dense.keras", "-o", folder / "x.mpo", "--ratio", "0.4"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    model = with_cores(dense, folder / "x.mpo")
    model.summary()
    x = random.normal(size=(512, 64))
    y = dense.predict(x, verbose=0)
    model.compile("adam", "mse")
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, epochs=20, verbose=0)
    print(f"loss {before:.4f} -> {model.evaluate(x, y, verbose=0):.4f}")
    model.save(folder / "tuned.keras")
    again = keras.models.load_model(folder / "tuned.keras")
    print("loaded again:", np.allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5))
