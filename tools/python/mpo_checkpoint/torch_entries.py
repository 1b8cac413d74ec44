"""Entries of a checkpoint as PyTorch tensors, and back; all dtypes, byte for byte."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from .errors import CheckpointError
from .safetensors_file import Entry, copied

_TORCH = {
    name: getattr(torch, attribute)
    for name, attribute in {
        "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64", "BOOL": "bool",
        "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
        "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
        "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
        "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    }.items()
    if hasattr(torch, attribute)
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _TORCH.items()}


def torch_dtype(name: str) -> torch.dtype:
    """The PyTorch type of a dtype of the format."""
    if name not in _TORCH:
        raise CheckpointError(name, "this version of PyTorch has no such type")
    return _TORCH[name]


def tensor_of(entry: Entry) -> Tensor:
    """An entry's elements, copied."""
    dtype = torch_dtype(entry.dtype)
    return torch.from_numpy(copied(entry)).view(dtype).reshape(entry.shape)


def entry_of(tensor: Tensor, dtype: str | None = None) -> Entry:
    """A tensor's elements in a dtype of the format, or in its own."""
    if dtype is None and tensor.dtype not in _NAMES:
        raise CheckpointError(str(tensor.dtype), "the checkpoint format has no such type")
    dtype = dtype or _NAMES[tensor.dtype]
    values = tensor.detach().to("cpu", torch_dtype(dtype)).contiguous()
    return Entry(dtype, tuple(tensor.shape), values.reshape(-1).view(torch.uint8).numpy())


def digest_of(tensor: Tensor) -> str:
    """Tells whether a tensor's elements changed."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()
