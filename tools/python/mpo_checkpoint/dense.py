"""MPO checkpoints as dense NumPy arrays."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

_TYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}


def load_dense(path: Path | str) -> dict[str, np.ndarray]:
    """Restores every tensor of the MPO checkpoint in the folder `path`, by name.

    BF16 tensors become float32, exactly; all others keep their dtype.
    """
    folder = Path(path)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    if manifest.get("format") != "mpo-checkpoint" or manifest["version"].split(".")[0] != "1":
        raise ValueError(f"{folder}: is no MPO checkpoint of version 1")
    entries: dict[str, np.ndarray] = {}
    for shard in manifest["shards"]:
        entries |= _read_safetensors(folder / shard["name"])
    tensors: dict[str, np.ndarray] = {}
    for record in manifest["tensors"]:
        if record["kind"] == "dense":
            tensors[record["name"]] = entries[record["name"]]
        elif record["kind"] == "mpo":
            cores = [entries[f"{record['name']}.cores.{k}"] for k in range(len(record["row_factors"]))]
            matrix = contract(cores, *record["matrix_shape"]).reshape(record["shape"])
            tensors[record["name"]] = matrix.astype(_TYPES.get(record["dtype"], "<f4"), copy=False)
    for record in manifest["tensors"]:
        if record["kind"] == "tied":
            tensors[record["name"]] = tensors[record["tied_to"]]
    return {record["name"]: tensors[record["name"]] for record in manifest["tensors"]}


def contract(cores: list[np.ndarray], rows: int, columns: int) -> np.ndarray:
    """The first rows and columns of the matrix that cores `[d, i, j, d']` stand for."""
    result = cores[0] if cores[0].dtype == np.float64 else cores[0].astype(np.float32)
    for core in cores[1:]:
        result = np.tensordot(result, core.astype(result.dtype), 1)
        a, i, j, k, l, c = result.shape
        result = result.transpose(0, 1, 3, 2, 4, 5).reshape(a, i * k, j * l, c)
    return result[0, :rows, :columns, 0]


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    data = np.memmap(path, np.uint8, "r")
    (length,) = struct.unpack("<Q", data[:8].tobytes())
    header = json.loads(data[8 : 8 + length].tobytes())
    result = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        raw = data[begin:end].tobytes()
        if entry["dtype"] == "BF16":
            value = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif entry["dtype"] in _TYPES:
            value = np.frombuffer(raw, _TYPES[entry["dtype"]])
        else:
            raise ValueError(f"{path}: tensor '{name}' has the type {entry['dtype']}, which NumPy has not")
        result[name] = value.reshape(entry["shape"])
    return result
