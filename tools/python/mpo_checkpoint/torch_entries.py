"""Converts entries of a checkpoint to PyTorch tensors and back, byte for byte in all dtypes."""

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
    """The PyTorch dtype of a dtype of the format.

    Raises
    ------
    CheckpointError
        if this version of PyTorch has no such dtype.
    """
    if name not in _TORCH:
        raise CheckpointError(name, "this version of PyTorch has no such dtype; install a newer one")
    return _TORCH[name]


def tensor_of(entry: Entry) -> Tensor:
    """A copy of an entry's elements."""
    dtype = torch_dtype(entry.dtype)
    return torch.from_numpy(copied(entry)).view(dtype).reshape(entry.shape)


def entry_of(tensor: Tensor, dtype: str | None = None) -> Entry:
    """A tensor's elements as an entry, converted to a dtype of the format or in the tensor's own dtype."""
    if dtype is None and tensor.dtype not in _NAMES:
        raise CheckpointError(str(tensor.dtype), "the checkpoint format has no such dtype; cast the tensor to another one")
    dtype = dtype or _NAMES[tensor.dtype]
    values = tensor.detach().to("cpu", torch_dtype(dtype)).contiguous()
    return Entry(dtype, tuple(tensor.shape), values.reshape(-1).view(torch.uint8).numpy())


def digest_of(tensor: Tensor) -> str:
    """The SHA-256 of a tensor's bytes, which tells whether its elements changed."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()
