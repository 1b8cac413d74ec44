"""Entries of safetensors files as raw bytes of any dtype, because NumPy has no bfloat16 and codecs work on bytes."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from .errors import CheckpointError

BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
FLOATING = ("F64", "F32", "F16", "BF16")
"""The dtypes that cores can have; only tensors of these dtypes are trained."""

_PIECE = 1 << 22

_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "C64": "<c8", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip
_WRITER_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F4": "float4_e2m1fn_x2",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A tensor of a file: its dtype as the format names it, its shape, and its bytes ``[n] uint8``, a view of the mapped file."""

    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray

    def numpy(self) -> np.ndarray:
        """The elements; BF16 becomes float32, exactly, because NumPy lacks it.

        Raises
        ------
        CheckpointError
            if NumPy has no such dtype.
        """
        if self.dtype == "BF16":
            return (self.data.view("<u2").astype("<u4") << 16).view("<f4").reshape(self.shape)
        if self.dtype not in _NUMPY:
            raise CheckpointError(self.dtype, "NumPy has no such type; load the checkpoint with torch instead")
        return self.data.view(_NUMPY[self.dtype]).reshape(self.shape)

    @classmethod
    def of(cls, array: np.ndarray, dtype: str) -> Entry:
        """The elements of an array, converted to a dtype of `FLOATING` or in the array's own dtype."""
        if dtype == "BF16":
            bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
            rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            values = np.where(np.isnan(array), 0x7FC0, rounded).astype("<u2")
        else:
            values = np.ascontiguousarray(array, _NUMPY[dtype])
        return cls(dtype, array.shape, np.frombuffer(values.tobytes(), np.uint8))

    @property
    def element_count(self) -> int:
        return prod(self.shape)


def copied(entry: Entry) -> np.ndarray:
    """A copy of the bytes of an entry, made piece by piece, so that little of the mapped file is in memory at a time."""
    result = np.empty(entry.data.size, np.uint8)
    for start in range(0, result.size, _PIECE):
        result[start : start + _PIECE] = entry.data[start : start + _PIECE]
        release(entry)
    return result


def release(entry: Entry) -> None:
    """Frees the memory of an entry's mapped file; the file is read again when it is needed."""
    if isinstance(entry.data, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        entry.data._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def element_bytes(dtype: str, shape: Iterable[int]) -> int:
    """The size of a tensor in bytes."""
    return -(-prod(shape) * BITS[dtype] // 8)


def read_entries(path: Path) -> dict[str, Entry]:
    """All entries of a file, by name. The file is mapped, not read.

    Raises
    ------
    CheckpointError
        if the file is not a valid safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):  # checks the header against the file: ranges, overlaps, sizes
            pass
    except SafetensorError as error:
        raise CheckpointError(path, f"is not a valid safetensors file ({error}); copy it again") from None
    content = np.memmap(path, np.uint8, "r")
    start = 8 + int(content[:8].view("<u8")[0])
    entries = {}
    for name, info in json.loads(content[8:start].tobytes()).items():
        if name != "__metadata__":
            begin, end = info["data_offsets"]
            entries[name] = Entry(info["dtype"], tuple(info["shape"]), content[start + begin : start + end])
    return entries


def write_entries(path: Path, entries: dict[str, Entry], metadata: dict[str, str]) -> None:
    """Writes these entries as a file.

    Raises
    ------
    CheckpointError
        if the safetensors library can't write a dtype.
    """
    from safetensors import TensorSpec, serialize_file

    specs, kept = {}, []
    for name, entry in entries.items():
        if entry.dtype not in _WRITER_NAMES:
            raise CheckpointError(name, f"tensors of dtype {entry.dtype} can't be written from Python")
        data = np.ascontiguousarray(entry.data)
        kept.append(data)
        specs[name] = TensorSpec(
            dtype=_WRITER_NAMES[entry.dtype],
            shape=list(entry.shape),
            data_ptr=data.ctypes.data,
            data_len=data.nbytes,
        )
    serialize_file(specs, str(path), metadata)
