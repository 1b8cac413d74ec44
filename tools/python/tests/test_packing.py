"""Packed entries and cores with scales, as the built tool writes them and as FORMAT.md says."""

from __future__ import annotations

import os
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from mpo_checkpoint import CheckpointError, MPOCheckpoint, load_dense, load_into, save
from mpo_checkpoint.mpo_weight import MPOWeight
from mpo_checkpoint.packing import CODEC, unpacked
from mpo_checkpoint.safetensors_file import Entry
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[3]
TOOL = os.environ.get("MPO") or str(ROOT / ".build/release/mpo")
needs_tool = pytest.mark.skipif(shutil.which(TOOL) is None, reason="mpo is not built")


def packed_entry(elements: bytes, dtype: str, size: int, block_bytes: int):
    """An entry packed as FORMAT.md says, with every plane deflated that becomes smaller, and its object in the manifest."""
    rows, blocks = [], []
    for start in range(0, len(elements), block_bytes):
        block = elements[start : start + block_bytes]
        row = []
        for plane in range(size):
            content = block[plane::size]
            compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
            deflated = compressor.compress(content) + compressor.flush()
            blocks.append(deflated if len(deflated) < len(content) else content)
            row.append(len(blocks[-1]))
        rows.append([*row, zlib.crc32(block)])
    stored = np.array(rows, "<u4").tobytes() + b"".join(blocks)
    member = {
        "name": "x",
        "codec": CODEC,
        "dtype": dtype,
        "shape": [len(elements) // size],
        "block_bytes": block_bytes,
        "bytes": len(stored),
    }
    return Entry("U8", (len(stored),), np.frombuffer(stored, np.uint8).copy()), member


def weights(count, dtype):
    return (np.random.default_rng(1).standard_normal(count) * 0.04).astype(dtype).tobytes()


@pytest.mark.parametrize(("dtype", "size"), [("<f4", 4), ("<f2", 2), ("<f8", 8), ("i1", 1)])
@pytest.mark.parametrize("block_bytes", [1 << 10, 1 << 18])
def test_an_entry_is_unpacked_bit_for_bit(dtype, size, block_bytes):
    content = weights(100_003, dtype)
    name = {4: "F32", 2: "F16", 8: "F64", 1: "I8"}[size]
    stored, member = packed_entry(content, name, size, block_bytes)
    entry = unpacked(stored, member, "x")
    assert entry.dtype == name and entry.shape == (100_003,) and entry.data.tobytes() == content


def test_every_flipped_bit_is_an_error_or_makes_no_difference():
    content = weights(100, "<f4")
    stored, member = packed_entry(content, "F32", 4, 200)
    harmless = 0
    for place in range(len(stored.data)):
        for bit in range(8):
            stored.data[place] ^= 1 << bit
            try:
                assert unpacked(stored, member, "x").data.tobytes() == content
                harmless += 1
            except CheckpointError as error:
                assert "damaged" in str(error)
            stored.data[place] ^= 1 << bit
    assert harmless <= 7 * 4 * 2


@pytest.mark.parametrize(("place", "value"), [(0, 0), (1, 1001), (2, 2**32 - 1), (3, 500)])
def test_an_impossible_table_is_an_error(place, value):
    stored, member = packed_entry(bytes(4000), "F32", 4, 1 << 18)
    stored.data[place * 4 : place * 4 + 4] = np.frombuffer(np.uint32(value).tobytes(), np.uint8)
    with pytest.raises(CheckpointError, match="table"):
        unpacked(stored, member, "x")


def test_a_plane_that_inflates_to_more_is_not_inflated():
    stored, member = packed_entry(bytes(4000), "F32", 4, 1 << 18)
    bomb, _ = packed_entry(bytes(4 << 20), "F32", 4, 8 << 20)
    own, theirs = int(stored.data[:4].view("<u4")[0]), int(bomb.data[:4].view("<u4")[0])
    changed = np.concatenate([stored.data[:20], bomb.data[20 : 20 + theirs], stored.data[20 + own :]])
    changed[:4] = np.frombuffer(np.uint32(theirs).tobytes(), np.uint8)
    if theirs > 1000:  # as large as a plane that is stored as it is, or larger
        match = "table"
    else:
        match = "inflated"
    with pytest.raises(CheckpointError, match=match):
        unpacked(Entry("U8", (len(changed),), changed), {**member, "bytes": len(changed)}, "x")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    generator = torch.Generator().manual_seed(1)
    tensors = {
        "a.weight": torch.randn(96, 128, generator=generator),
        "a.bias": torch.randn(96, generator=generator),
        "b.weight": torch.randn(64, 96, generator=generator),
        "b.bias": torch.zeros(64),
    }
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file(tensors, path, {"format": "pt"})
    return path


def convert(model_file, folder, *options):
    subprocess.run(
        [TOOL, "convert", model_file, "-o", folder, "--ratio", "0.6", *options], check=True, capture_output=True
    )
    return folder


OPTIONS = [
    ["--pack"],
    ["--central", "int8"],
    ["--central", "int8", "--pack"],
    ["--dtype", "bf16", "--central", "int8", "--pack"],
]


@needs_tool
@pytest.mark.parametrize("options", OPTIONS)
def test_what_the_tool_writes_is_restored_as_the_tool_does(model_file, tmp_path, options):
    folder = convert(model_file, tmp_path / "x.mpo", *options)
    checkpoint = MPOCheckpoint(folder)
    assert any(record.packed for record in records_of(checkpoint)) == ("--pack" in options)
    central = [core for core in checkpoint.cores.values() if core.role == "central"]
    assert central and all((core.encoding.kind == "scaled") == ("--central" in options) for core in central)
    subprocess.run([TOOL, "restore", folder, "-o", tmp_path / "dense.safetensors"], check=True, capture_output=True)
    dense = load_dense(folder)
    for name, tensor in load_file(tmp_path / "dense.safetensors").items():
        np.testing.assert_allclose(dense[name], tensor, atol=2e-5, err_msg=name)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(128, 96), torch.nn.Linear(96, 64)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


def records_of(checkpoint):
    return [*checkpoint.tensors.values(), *checkpoint.cores.values()]


def entries_of(folder):
    checkpoint = MPOCheckpoint(folder)
    return {
        name: (entry.dtype, entry.shape, entry.data.tobytes())
        for record in records_of(checkpoint)
        for name, entry in checkpoint.entries(record).items()
    }


@needs_tool
@pytest.mark.parametrize("options", OPTIONS)
def test_a_compact_checkpoint_is_loaded_and_saved_without_loss(model_file, tmp_path, options):
    folder = convert(model_file, tmp_path / "x.mpo", *options)
    model = Net()
    load_into(model, folder)
    dense = load_dense(folder)
    x = torch.randn(5, 128)
    tensors = {name: torch.tensor(array) for name, array in dense.items()}
    hidden = torch.relu(x @ tensors["a.weight"].T + tensors["a.bias"])
    expected = hidden @ tensors["b.weight"].T + tensors["b.bias"]
    torch.testing.assert_close(model(x), expected, atol=1e-3, rtol=1e-3)
    save(model, tmp_path / "saved.mpo")
    assert entries_of(tmp_path / "saved.mpo") == entries_of(folder)
    saved = MPOCheckpoint(tmp_path / "saved.mpo")
    assert not any(record.packed for record in records_of(saved))
    before, after = MPOCheckpoint(folder).manifest.raw["totals"], saved.manifest.raw["totals"]
    assert "bytes_unpacked" not in after
    assert after["bytes_stored"] == before.get("bytes_unpacked", before["bytes_stored"])
    for name in ("parameters_stored", "parameters_trainable", "ratio", "relative_error"):
        assert after[name] == pytest.approx(before[name])
    subprocess.run([TOOL, "verify", tmp_path / "saved.mpo", "--against", model_file], check=True, capture_output=True)


@needs_tool
@pytest.mark.parametrize("role", ["auxiliary", "central"])
def test_cores_with_scales_are_rounded_again_once_they_were_trained(model_file, tmp_path, role):
    folder = convert(model_file, tmp_path / "x.mpo", "--central", "int8", "--pack")
    model = Net()
    load_into(model, folder, trainable=role)
    expected = {}
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, MPOWeight):
                for core in [module.central_core] if role == "central" else module.auxiliary_cores:
                    core.mul_(1.25)
                expected[name] = module.matrix().numpy()
    assert expected
    save(model, tmp_path / "saved.mpo")
    saved = MPOCheckpoint(tmp_path / "saved.mpo")
    for name, matrix in expected.items():
        assert "relative_error" not in saved.tensors[name].raw
        operator = saved.operators[saved.tensors[name].operators[0]]
        assert saved.cores[operator.cores[operator.central]].encoding.kind == "scaled"
        assert np.linalg.norm(saved.tensor(name) - matrix) < 0.02 * np.linalg.norm(matrix)
    subprocess.run([TOOL, "verify", tmp_path / "saved.mpo"], check=True, capture_output=True)


def test_the_code_in_the_specification_unpacks(tmp_path):
    text = (ROOT / "Sources/MPOCheckpoints/FORMAT.md").read_text("utf-8")
    code = next(part.split("```")[0] for part in text.split("```python\n") if part.startswith("def unpack("))
    names = {}
    exec("import math, zlib\nimport numpy as np\n" + code, names)
    content = weights(3001, "<f4")
    stored, member = packed_entry(content, "F32", 4, 1 << 10)
    result = names["unpack"](stored.data, np.dtype("<f4"), [3001], member["block_bytes"])
    assert result.tobytes() == content
