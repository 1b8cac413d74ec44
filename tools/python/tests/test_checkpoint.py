"""Reading MPO checkpoints with NumPy."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mpo_checkpoint import CheckpointError, MPOCheckpoint, load_dense
from mpo_checkpoint.encoding import quantized
from reference import Cut, file_object, sign, write_checkpoint
from safetensors.numpy import load_file as numpy_file
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[3]
TENSORS = {
    "a.weight": torch.randn(12, 10, generator=torch.Generator().manual_seed(1)),
    "a.bias": torch.arange(12.0),
    "b.weight": torch.arange(6, dtype=torch.int64).reshape(2, 3),
}
CUT = Cut((2, 3, 2), (5, 1, 2))


def example(folder, **options):
    return write_checkpoint(folder / "x.mpo", TENSORS, {"a.weight": CUT}, **options)


def test_a_lossless_checkpoint_restores_every_tensor_in_order(tmp_path):
    dense = load_dense(example(tmp_path).folder)
    assert list(dense) == list(TENSORS)
    for name, tensor in TENSORS.items():
        np.testing.assert_allclose(dense[name], tensor, atol=1e-5)
        assert dense[name].dtype == tensor.numpy().dtype


@pytest.mark.parametrize(
    "cut",
    [
        Cut((12, 1), (1, 10), bond=3),  # low rank
        Cut((2, 3, 2), (5, 1, 2), bond=4),
        Cut((4, 4), (3, 4)),  # padded
        Cut((3, 2, 1, 3, 2), (1, 5, 2, 1, 1), bond=5),
        Cut((12, 1, 1, 1), (1, 1, 1, 10), bond=3),  # deep factors
    ],
)
@pytest.mark.parametrize("gauge", ["canonical", "compact"])
def test_cores_multiply_to_the_matrix_of_the_format(tmp_path, cut, gauge):
    cut = replace(cut, gauge=gauge)
    written = write_checkpoint(tmp_path / "x.mpo", TENSORS, {"a.weight": cut})
    np.testing.assert_allclose(load_dense(written.folder)["a.weight"], written.dense["a.weight"], atol=1e-5)


def test_a_convolution_kernel_keeps_its_shape(tmp_path):
    kernel = torch.randn(8, 4, 3, 3)
    cut = Cut((2, 4), (4, 9), matrix_shape=(8, 36))
    written = write_checkpoint(tmp_path / "x.mpo", {"conv.weight": kernel}, {"conv.weight": cut})
    np.testing.assert_allclose(load_dense(written.folder)["conv.weight"], kernel, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, np.float64),
        (torch.float32, np.float32),
        (torch.float16, np.float16),
        (torch.bfloat16, np.float32),
    ],
)
def test_dtypes(tmp_path, dtype, expected):
    tensors = {"w": torch.randn(8, 6).to(dtype), "v": torch.randn(5).to(dtype)}
    written = write_checkpoint(tmp_path / "x.mpo", tensors, {"w": Cut((2, 4), (3, 2))})
    dense = load_dense(written.folder)
    assert dense["w"].dtype == dense["v"].dtype == expected
    np.testing.assert_array_equal(dense["v"], tensors["v"].to(torch.float64).numpy())
    tolerance = 1e-12 if dtype == torch.float64 else 0.03
    np.testing.assert_allclose(dense["w"], tensors["w"].to(torch.float64), atol=tolerance)


def test_cores_may_be_of_less_precision_than_the_source(tmp_path):
    cut = Cut((2, 3, 2), (5, 1, 2), dtype=torch.bfloat16)
    written = write_checkpoint(tmp_path / "x.mpo", TENSORS, {"a.weight": cut})
    dense = load_dense(written.folder)
    assert dense["a.weight"].dtype == np.float32
    np.testing.assert_allclose(dense["a.weight"], written.dense["a.weight"], atol=1e-5)


def test_a_tied_tensor_is_the_one_it_is_tied_to(tmp_path):
    tensors = {**TENSORS, "head.weight": TENSORS["a.weight"]}
    written = write_checkpoint(tmp_path / "x.mpo", tensors, {"a.weight": CUT}, ties={"head.weight": "a.weight"})
    dense = load_dense(written.folder)
    np.testing.assert_array_equal(dense["head.weight"], dense["a.weight"])


def test_shards_are_read(tmp_path):
    written = example(tmp_path)
    entries = load_file(written.folder / "tensors.safetensors")
    (written.folder / "tensors.safetensors").unlink()
    names = ["tensors-00001-of-00002.safetensors", "tensors-00002-of-00002.safetensors"]
    for name, part in zip(names, (list(entries)[:2], list(entries)[2:])):
        save_file({key: entries[key] for key in part}, written.folder / name)
    shards = [file_object(written.folder / name) for name in names]
    written.rewrite_manifest(lambda manifest: manifest.update(shards=shards))
    np.testing.assert_allclose(load_dense(written.folder)["a.weight"], TENSORS["a.weight"], atol=1e-5)


def test_numpy_alone_is_enough(tmp_path):
    folder = example(tmp_path).folder
    program = (
        "import sys, mpo_checkpoint; mpo_checkpoint.load_dense(sys.argv[1]); assert not {'torch', 'transformers'} "
        "& set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)


def test_checksums_find_a_flipped_bit(tmp_path):
    folder = example(tmp_path).folder
    MPOCheckpoint(folder).manifest.check_checksums()
    path = folder / "tensors.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        MPOCheckpoint(folder).manifest.check_checksums()


def test_a_changed_manifest_is_refused(tmp_path):
    path = example(tmp_path).folder / "manifest.json"
    path.write_text(path.read_text().replace('"reference"', '"somebody"'))
    with pytest.raises(CheckpointError, match="was changed"):
        load_dense(path.parent)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"format": "mpo-checkpoint"}', b"\xff"])
def test_an_invalid_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(CheckpointError):
        load_dense(tmp_path)


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is not an MPO checkpoint"):
        load_dense(tmp_path)


def test_a_link_in_the_place_of_a_shard_is_refused(tmp_path):
    folder = example(tmp_path).folder
    (folder / "tensors.safetensors").rename(tmp_path / "elsewhere")
    (folder / "tensors.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="symbolic link"):
        load_dense(folder)


def test_a_truncated_shard_is_refused(tmp_path):
    written = example(tmp_path)
    path = written.folder / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    written.rewrite_manifest(lambda manifest: manifest.update(shards=[file_object(path)]))
    with pytest.raises(CheckpointError, match="safetensors"):
        load_dense(written.folder)


def test_an_unknown_codec_is_named(tmp_path):
    written = example(tmp_path)
    path = written.folder / "tensors.safetensors"
    entries = load_file(path)
    entries["a.weight.cores.0"] = torch.zeros(30, dtype=torch.uint8)
    save_file(entries, path)
    written.rewrite_manifest(lambda manifest: manifest.update(shards=[file_object(path)]))
    with pytest.raises(CheckpointError, match="codec"):
        load_dense(written.folder)


def test_members_of_a_later_minor_version_are_ignored(tmp_path):
    written = example(tmp_path)
    written.rewrite_manifest(lambda manifest: manifest.update(version="2.7", colour="blue"))
    load_dense(written.folder)


def test_the_manifest_is_signed_as_the_format_says(tmp_path):
    path = example(tmp_path).folder / "manifest.json"
    manifest = json.loads(path.read_text())
    sign(path, manifest)
    load_dense(path.parent)


def test_the_code_in_the_specification_reads_a_checkpoint():
    text = (ROOT / "Sources/MPOCheckpoints/FORMAT.md").read_text("utf-8")
    code = {}
    for part in text.split("```python\n")[1:]:
        exec("import math, zlib\nimport numpy as np\n" + part.split("```")[0], code)
    folder = ROOT / "fixtures/malformed/base.mpo"
    manifest, entries = json.loads((folder / "manifest.json").read_text()), numpy_file(folder / "tensors.safetensors")
    arrays = {}
    for core in manifest["cores"]:
        name, encoding = core["name"], core["encoding"]
        values, pivots = entries.get(name), entries.get(name + ".pivots")
        if encoding["kind"] == "scaled":
            values = values.astype(np.float32) * entries[name + ".scales"]
        if "pivots" in encoding:
            values = code["whole"](values, pivots, core["shape"], encoding["pivots"])
        arrays[name] = values
    matrices = {}
    for operator in manifest["operators"]:
        cores = [arrays[name] for name in operator["cores"]]
        if operator["gauge"] == "spectral":
            cores[operator["central"]] = (
                arrays[operator["singular_values"]][:, None, None, None] * cores[operator["central"]]
            )
        rows, columns = [
            {
                kind: arrays[name]
                for kind, name in {"basis": None, "permutation": None, "scale": None, **operator.get(side, {})}.items()
                if name
            }
            for side in ("row_basis", "column_basis")
        ]
        empty = {"basis": None, "permutation": None, "scale": None}
        matrix = code["side"](code["chain"](cores, *operator["matrix_shape"]), **empty | rows)
        matrices[operator["name"]] = code["side"](matrix.T, **empty | columns).T
    expected = numpy_file(folder.parent / "base-matrices.safetensors")
    for tensor in manifest["tensors"]:
        if tensor["kind"] == "mpo":
            blocks = [
                sum(
                    matrices[t["operator"]][slice(*t.get("rows", [None])), slice(*t.get("columns", [None]))]
                    for t in block
                )
                for block in tensor["blocks"]
            ]
            found = np.concatenate(blocks).reshape(tensor["shape"])
            np.testing.assert_array_equal(found, expected[tensor["name"]], err_msg=tensor["name"])


def test_scales_give_small_errors_and_take_little_room():
    values = np.random.default_rng(0).standard_normal((8, 4, 6, 32)) * np.logspace(-3, 3, 8)[:, None, None, None]
    data, scales = quantized(values)
    assert scales.size * 4 <= data.size / 32 and scales.shape[0] == 8
    assert np.abs(data * scales - values).max(axis=(1, 2, 3), keepdims=True).max() <= np.abs(values).max() / 127
    assert np.linalg.norm(data * scales - values) < 0.01 * np.linalg.norm(values)
    data, scales = quantized(np.array([[0.0, 1e-44]]))
    assert not data.any() and not scales.any()
    data, scales = quantized(np.array([[-1.0, 0.5]]))
    assert data.tolist() == [[-127, 64]] and scales.shape == (1, 1)
