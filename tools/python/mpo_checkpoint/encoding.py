"""Encodings: how the elements of a core or a dense tensor are stored in the shards. New encodings are added here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any, Literal

import numpy as np

from . import grouped
from .errors import CheckpointError, Contradiction
from .safetensors_file import BITS, FLOATING, Entry

Shape = tuple[int, ...]
Side = Literal["left", "right"]

_INDICES = ("U8", "U16", "U32", "I64")
"""The dtypes that a permutation may have."""
_SCALED_BITS = 8
_VALUES_OF_A_SCALE = 128
"""The least number of values that share a scale: scales of four bytes then take at most 1/32 of the bytes of the values."""


@dataclass(frozen=True)
class Encoding:
    """How the elements of an array are stored.

    Attributes
    ----------
    kind
        ``"plain"``; ``"scaled"``: int8 values that are multiplied with scales; or ``"grouped"``: integers of few bits with a
        scale for each group of neighbours in a row, see `grouped`.
    dtype
        the dtype of the values in the shards.
    scale_shape
        only for ``"scaled"``: the shape of the scales, which broadcasts to that of the values; each axis is 1 or as for the
        values.
    pivots
        the side of an auxiliary core whose identity is not stored; None if all of the core is stored.
    bits, group, columns
        only for ``"grouped"``: bits of a code, codes of a group, codes of a row.
    """

    kind: str
    dtype: str
    scale_shape: Shape | None = None
    pivots: Side | None = None
    bits: int = 0
    group: int = 0
    columns: int = 0

    @classmethod
    def plain(cls, dtype: str) -> Encoding:
        return cls("plain", dtype)

    @classmethod
    def parse(cls, raw: Any, shape: Shape, role: str, where: str) -> Encoding:
        """The encoding that a manifest describes.

        Parameters
        ----------
        raw
            the JSON object.
        shape
            the shape of the whole array.
        role
            the role of the core, or ``"dense"``.
        where
            the name of the core or tensor, for messages.

        Raises
        ------
        Contradiction
            if FORMAT.md does not allow the encoding, or if it does not fit the array.
        """
        if not isinstance(raw, dict):
            raise Contradiction(f"{where} has an encoding that is not an object")
        kind, pivots = raw.get("kind"), raw.get("pivots")
        if pivots is not None:
            if pivots not in ("left", "right"):
                raise Contradiction(f"{where} has pivots on the unknown side '{pivots}'")
            if role != "auxiliary":
                raise Contradiction(f"{where} has pivots; only an auxiliary core can have them")
        if kind == "plain":
            dtype = raw.get("dtype")
            if dtype not in BITS:
                raise Contradiction(f"{where} has an encoding of the unknown dtype '{dtype}'")
            if role == "permutation" and dtype not in _INDICES:
                raise Contradiction(f"{where} is a permutation of {dtype}, not of integers ({', '.join(_INDICES)})")
            if role not in ("permutation", "dense") and dtype not in FLOATING:
                raise Contradiction(f"{where} is a core of {dtype}, not of a floating-point dtype")
            encoding = cls("plain", dtype, pivots=pivots)
        elif kind == "scaled":
            if raw.get("bits") != _SCALED_BITS:
                raise Contradiction(
                    f"{where} has an encoding of {raw.get('bits')} bits; only 8 are known: update mpo_checkpoint"
                )
            if role == "permutation":
                raise Contradiction(f"{where} is a permutation with scales; it must be plain")
            encoding = cls("scaled", "I8", None, pivots)
        elif kind == "grouped":
            encoding = _grouped(raw, role, pivots, where)
        else:
            raise Contradiction(f"{where} has an encoding of the unknown kind '{kind}': update mpo_checkpoint")
        if encoding.pivots and encoding.value_count(shape) < 0:
            raise Contradiction(f"{where} has more pivots than rows or columns")
        if kind == "scaled":
            scales, values = raw.get("scale_shape"), encoding.value_shape(shape)
            if (
                not isinstance(scales, list)
                or len(scales) != len(values)
                or not all(type(s) is int and s in (1, v) for s, v in zip(scales, values))
            ):
                raise Contradiction(
                    f"{where} has the scale_shape {scales}, which does not broadcast to its values {list(values)}"
                )
            encoding = replace(encoding, scale_shape=tuple(scales))
        if kind == "grouped" and (count := encoding.value_count(shape)) % encoding.columns:
            raise Contradiction(
                f"{where} has {encoding.columns} columns, which do not divide its {count} values into rows"
            )
        return encoding

    def json(self) -> dict[str, Any]:
        """The JSON object of a manifest."""
        if self.kind == "plain":
            raw: dict[str, Any] = {"kind": "plain", "dtype": self.dtype}
        elif self.kind == "grouped":
            raw = {"kind": "grouped", "bits": self.bits, "group": self.group, "columns": self.columns}
        else:
            raw = {"kind": "scaled", "bits": _SCALED_BITS, "scale_shape": list(self.scale_shape or ())}
        return raw | ({"pivots": self.pivots} if self.pivots else {})

    # What is in the shards

    @property
    def is_of_integers(self) -> bool:
        """Whether the values are stored as integers with scales."""
        return self.kind != "plain"

    def pivot_count(self, shape: Shape) -> int:
        return 0 if self.pivots is None else shape[-1] if self.pivots == "left" else shape[0]

    def value_shape(self, shape: Shape) -> Shape:
        """The shape of the stored values of an array of this shape: two axes if the array is a pivoted core."""
        count = self.pivot_count(shape)
        if self.pivots == "left":
            return (prod(shape[:-1]) - count, count)
        return (count, prod(shape[1:]) - count) if self.pivots == "right" else shape

    def value_count(self, shape: Shape) -> int:
        """How many numbers are stored; scales and pivots do not count."""
        size = prod(shape[:-1]) if self.pivots == "left" else prod(shape[1:])
        return prod(shape) if self.pivots is None else self.pivot_count(shape) * (size - self.pivot_count(shape))

    def entries(self, name: str, shape: Shape) -> dict[str, tuple[str, Shape]]:
        """Dtype and shape, before packing, of the entries of the array ``name``, by name: values, scales, pivots."""
        values = self.value_shape(shape)
        if self.pivots and not prod(values):
            return {}
        entries = {name: (self.dtype, values)}
        if self.kind == "grouped":
            rows = prod(values) // self.columns
            entries[name] = ("U8", (rows, grouped.row_bytes(self.columns, self.bits)))
            entries[f"{name}.scales"] = ("F16", (rows, grouped.group_count(self.columns, self.group)))
        if self.scale_shape is not None:
            entries[f"{name}.scales"] = ("F32", self.scale_shape)
        if self.pivots:
            entries[f"{name}.pivots"] = (_index_dtype(_pivot_room(shape, self.pivots)), (self.pivot_count(shape),))
        return entries

    # Reading

    def decode(self, entries: Mapping[str, Entry], name: str, shape: Shape, where: str) -> np.ndarray:
        """The whole array, of ``shape``: float64 for F64, the same integers for integer dtypes, float32 for all others.

        Parameters
        ----------
        entries
            the entries that `entries` lists, unpacked.

        Raises
        ------
        CheckpointError
            if pivots or scales are invalid.
        """
        if self.pivots is None:
            return self._values(entries, name, shape, where)
        values, pivots = self.parts(entries, name, shape, where)
        return whole(values, pivots, shape, self.pivots)

    def parts(self, entries: Mapping[str, Entry], name: str, shape: Shape, where: str) -> tuple[np.ndarray, np.ndarray]:
        """The values of a pivoted core, of `value_shape`, and its ascending pivots ``[d']`` (or ``[d]``), int64."""
        assert self.pivots is not None
        if name not in entries:
            dtype = np.float64 if self.dtype == "F64" else np.float32
            return np.zeros(self.value_shape(shape), dtype), np.arange(self.pivot_count(shape))
        return self._values(entries, name, shape, where), self.pivot_indices(entries, name, shape, where)

    def pivot_indices(self, entries: Mapping[str, Entry], name: str, shape: Shape, where: str) -> np.ndarray:
        """The ascending pivots ``[d']`` (or ``[d]``) of a pivoted core that has values, int64."""
        assert self.pivots is not None
        pivots = entries[f"{name}.pivots"].numpy().astype(np.int64)
        if (np.diff(pivots) <= 0).any() or pivots[-1] >= _pivot_room(shape, self.pivots):
            raise CheckpointError(
                where, "has pivots that do not ascend or lie outside the core; convert the model again"
            )
        return pivots

    def integers(self, entries: Mapping[str, Entry], name: str, where: str) -> tuple[np.ndarray, np.ndarray]:
        """The stored integers, uint8 (packed codes) or int8, and their scales.

        Raises
        ------
        CheckpointError
            if a scale is invalid, or if bits are set after the last code of a row.
        """
        values, scales = entries[name].numpy(), entries[f"{name}.scales"].numpy()
        if self.kind == "grouped":
            if not np.isfinite(scales).all():
                raise CheckpointError(where, "has a scale that is not finite; convert the model again")
            if (used := self.columns * self.bits % 8) and (values[:, -1] >> used).any():
                raise CheckpointError(where, "has bits after the last code of a row; convert the model again")
        elif not (np.isfinite(scales).all() and (scales >= 0).all()):
            raise CheckpointError(where, "has a scale that is negative or not finite; convert the model again")
        return values, scales

    def _values(self, entries: Mapping[str, Entry], name: str, shape: Shape, where: str) -> np.ndarray:
        if self.kind == "grouped":
            codes, scales = self.integers(entries, name, where)
            values = grouped.decoded(codes, scales, self.bits, self.group, self.columns)
            return values.reshape(self.value_shape(shape))
        values = entries[name].numpy()
        if self.scale_shape is not None:
            values, scales = self.integers(entries, name, where)
            return values.astype(np.float32) * scales
        return values.astype(np.float32) if values.dtype == np.float16 else values

    # Writing

    def encode(
        self, name: str, array: np.ndarray, pivots: np.ndarray | None = None
    ) -> tuple[Encoding, dict[str, Entry]]:
        """The entries of an array in this encoding, with new scales.

        Parameters
        ----------
        array
            the whole array, float64.
        pivots
            ascending; only if the encoding is pivoted. The array must be the identity there.

        Returns
        -------
        the encoding with the shape of the new scales, and the entries by name.

        Raises
        ------
        CheckpointError
            if an element is not finite, or too large for the dtype.
        """
        if not np.isfinite(array).all():
            raise CheckpointError(name, "has elements that are not finite")
        values = array
        if self.pivots:
            assert pivots is not None
            flat = array.reshape(-1, array.shape[-1]) if self.pivots == "left" else array.reshape(len(array), -1).T
            values = np.delete(flat, pivots, axis=0)
            values = values if self.pivots == "left" else values.T
            if not values.size:
                return Encoding("plain", "F32" if self.is_of_integers else self.dtype, pivots=self.pivots), {}
        encoding, entries = self, {}
        if self.kind == "scaled":
            data, scales = quantized(values)
            encoding = replace(self, scale_shape=scales.shape)
            entries = {name: Entry.of(data, "I8"), f"{name}.scales": Entry.of(scales, "F32")}
        elif self.kind == "grouped":
            if values.size % self.columns:  # the array has another shape than before: a row is its last axis
                encoding = replace(self, columns=values.shape[-1])
            codes, scales = grouped.rounded(values.reshape(-1, encoding.columns), self.bits, self.group)
            data = grouped.packed_codes(codes, self.bits)
            entries = {name: Entry.of(data, "U8"), f"{name}.scales": Entry.of(scales, "F16")}
        else:
            entries = {name: Entry.of(values, self.dtype)}
            if not np.isfinite(entries[name].numpy()).all():
                raise CheckpointError(name, f"has elements that are too large for {self.dtype}")
        if self.pivots:
            entries[f"{name}.pivots"] = Entry.of(pivots, _index_dtype(_pivot_room(array.shape, self.pivots)))
        return encoding, entries


def _grouped(raw: dict[str, Any], role: str, pivots: Side | None, where: str) -> Encoding:
    """The encoding ``grouped`` that a manifest describes. `parse` checks whether the columns divide the number of values."""
    if role == "permutation":
        raise Contradiction(f"{where} is a permutation with scales; it must be plain")
    for key, known in (("bits", grouped.BITS), ("group", grouped.GROUPS)):
        if type(raw.get(key)) is not int or raw[key] not in known:
            among = ", ".join(map(str, known))
            raise Contradiction(f"{where} has an encoding with '{key}' {raw.get(key)}, not one of {among}")
    columns = raw.get("columns")
    if type(columns) is not int or columns < 1:
        raise Contradiction(f"{where} has an encoding with 'columns' {columns}, which is not a number of at least 1")
    return Encoding("grouped", "U8", None, pivots, raw["bits"], raw["group"], columns)


def whole(values: np.ndarray, pivots: np.ndarray, shape: Shape, side: Side) -> np.ndarray:
    """The core ``[d, i, j, d']`` of stored values and ascending pivots."""
    d, _, _, e = shape
    size, count = _pivot_room(shape, side), e if side == "left" else d
    result = np.zeros((size, count), values.dtype)
    result[pivots, np.arange(count)] = 1
    rest = np.ones(size, bool)
    rest[pivots] = False
    result[rest] = values if side == "left" else values.T
    return np.ascontiguousarray(result if side == "left" else result.T).reshape(shape)


def quantized(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Int8 values from −127 to 127 and float32 scales that broadcast, so that their product is nearest to the values.

    The scales have the shape with the most elements that takes at most 1/32 of the bytes of the values.

    Raises
    ------
    CheckpointError
        if a value is too large for float32.
    """
    shapes = product(*((1, size) for size in values.shape))
    ones = (1,) * values.ndim
    shape = max((s for s in shapes if prod(s) * _VALUES_OF_A_SCALE <= values.size), key=prod, default=ones)
    axes = tuple(axis for axis, size in enumerate(shape) if size != values.shape[axis])
    scales = (np.abs(values).max(axes, keepdims=True, initial=0) / 127).astype(np.float32)
    if not np.isfinite(scales).all():
        raise CheckpointError("scales", "the values are too large for float32")
    is_normal = scales >= np.finfo(np.float32).tiny
    scales = np.where(is_normal, scales, np.float32(0)).astype(np.float32)
    steps = np.divide(1, scales, where=is_normal, out=np.zeros(scales.shape), dtype=np.float64)
    return np.clip(np.rint(values * steps), -127, 127).astype(np.int8), scales


def _pivot_room(shape: Shape, side: Side) -> int:
    """How many rows (or columns) there are to choose pivots from."""
    return prod(shape[:-1]) if side == "left" else prod(shape[1:])


def _index_dtype(count: int) -> str:
    return "U8" if count <= 1 << 8 else "U16" if count <= 1 << 16 else "U32"
