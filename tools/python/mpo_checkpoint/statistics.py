"""The statistics file, with which a conversion measures errors in a metric of the network's layers. NumPy only.

The sides of a matrix ``[I, J]``, as the checkpoint stores it, are named after its axes: ``row`` is ``I`` and ``column`` is
``J``. A side has a ``gram``, a symmetric second moment ``[n, n]``, or a ``scale`` ``[n]``, the square root of the diagonal.
Instead of sides, a matrix can have ``element_weights [I, J]``. The file also says which side of each matrix the layer's inputs
are on, because a conversion adds different ridges to the sides of inputs and outputs.

A Gram matrix of a language model is stored as its upper triangle, row by row: ``[n (n + 1) / 2]``. A side that several matrices
have in common (``q``, ``k`` and ``v`` read the same input) is stored once; the metadata ``same``, a JSON object, maps each other
``<matrix>.<side>_<kind>`` to the name of the stored tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .errors import StatisticsError
from .statistics_writer import StatisticsWriter

FORMAT = "mpo-statistics"
VERSION = "2"
KINDS = ("row_gram", "row_scale", "column_gram", "column_scale", "element_weights")
# The names of the sides in version 1, for all kinds of layers.
OLD_SIDES = {"output": "row", "input": "column"}


@dataclass
class Statistics:
    """Second moments of layers, by matrix and side.

    Attributes
    ----------
    tensors
        arrays ``[n, n]`` (gram), ``[n]`` (scale) or ``[I, J]`` (element weights), by ``<matrix>.<side>_<kind>`` or
        ``<matrix>.element_weights``. Names of version 1 are changed to those of version 2.
    samples
        the number of samples.
    tokens
        the number of positions of these samples, without padding.
    description
        text for people: which samples ran through which model.
    skipped
        matrices that were left out, because no sample reached them or the output does not depend on them.
    input_rows
        the matrices whose rows are the layer's inputs; for all others, the columns are. None if this is not known: a conversion
        then assumes the orientation of the model's format.
    output_ridge, input_ridge
        what a conversion adds to the diagonals by default, relative to their means; None for the conversion's own defaults.
    written
        matrices whose tensors are in a file and not in ``tensors``.
    config_sha256
        the SHA-256 of the model folder's ``config.json``, with which a conversion refuses statistics of another model; None if
        the model was not a folder.

    Raises
    ------
    StatisticsError
        if one side has both its name of version 1 and its name of version 2.
    """

    tensors: dict[str, np.ndarray]
    samples: int = 0
    tokens: int = 0
    description: str = ""
    skipped: list[str] = field(default_factory=list)
    input_rows: list[str] | None = None
    output_ridge: float | None = None
    input_ridge: float | None = None
    written: list[str] = field(default_factory=list)
    config_sha256: str | None = None

    def __post_init__(self) -> None:
        renamed = {_renamed(name): value for name, value in self.tensors.items()}
        if len(renamed) < len(self.tensors):
            raise StatisticsError("a side of a matrix is stored under its old name and its new one")
        self.tensors = renamed

    def inputs(self, matrix: str) -> str:
        """The side of a matrix on which the layer's inputs are.

        Parameters
        ----------
        matrix
            the name of the matrix.

        Returns
        -------
        str
            ``"row"`` or ``"column"``.
        """
        return "row" if matrix in (self.input_rows or ()) else "column"

    @property
    def matrices(self) -> list[str]:
        """The names of all matrices that have statistics, sorted."""
        return sorted({name.rpartition(".")[0] for name in self.tensors} | set(self.written))

    def save(self, path: Path | str, dtype: np.dtype | type | str = np.float32, *, is_packed: bool = False) -> None:
        """Writes the file; it appears whole or not at all.

        Parameters
        ----------
        path
            the file to write.
        dtype
            the dtype of the numbers in the file.
        is_packed
            whether to store only the upper triangle of each Gram matrix.

        Raises
        ------
        StatisticsError
            if an array is not valid, see `validate`.
        """
        path = Path(path)
        self.validate(path)
        with StatisticsWriter(path, self.tensors, dtype) as writer:
            for name, value in self.tensors.items():
                writer.add(name, packed(value) if is_packed and name.endswith("_gram") else value)
            writer.finish(self.metadata)

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file."""
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "samples": str(self.samples),
            "tokens": str(self.tokens),
            "description": self.description,
        }
        if self.input_rows is not None:
            metadata["input_rows"] = json.dumps(sorted(self.input_rows), ensure_ascii=False)
        for name in ("input_ridge", "output_ridge"):
            if getattr(self, name) is not None:
                metadata[name] = repr(getattr(self, name))
        if self.config_sha256 is not None:
            metadata["config_sha256"] = self.config_sha256
        return metadata

    @classmethod
    def load(cls, path: Path | str) -> Statistics:
        """Reads and checks a file.

        Parameters
        ----------
        path
            a statistics file of version 1 or 2.

        Returns
        -------
        Statistics
            the statistics, with triangles as whole matrices and with a shared side under each of its names.

        Raises
        ------
        StatisticsError
            if the file is not a valid statistics file.
        """
        with opened(path) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise StatisticsError(f"{path}: is not a statistics file: its metadata has no 'format' '{FORMAT}'; give one that 'calibrate' wrote")
            if metadata.get("version", "1").partition(".")[0] not in ("1", VERSION):
                raise StatisticsError(f"{path}: has version {metadata['version']}; this reads versions 1 and {VERSION}: update mpo_checkpoint")
            tensors = {name: _unpacked(path, name, file.get_tensor(name)) for name in file.keys()}
        for name, stored in _same(path, metadata.get("same")).items():
            if stored not in tensors or name in tensors:
                raise StatisticsError(f"{path}: {name}: its metadata 'same' maps it to '{stored}', which is not stored; make the statistics again")
            tensors[name] = tensors[stored]
        statistics = cls(
            tensors,
            int(metadata.get("samples", 0)),
            int(metadata.get("tokens", 0)),
            metadata.get("description", ""),
            input_rows=_names(path, metadata.get("input_rows")),
            output_ridge=_ridge(path, metadata, "output_ridge"),
            input_ridge=_ridge(path, metadata, "input_ridge"),
            config_sha256=metadata.get("config_sha256"),
        )
        statistics.validate(path)
        return statistics

    def validate(self, path: Path | str) -> None:
        """Checks names, shapes, finite values, symmetry and diagonals.

        Parameters
        ----------
        path
            the file that messages name.

        Raises
        ------
        StatisticsError
            if an array has a value that a second moment, a scale or a weight can't have.
        """
        for name, value in self.tensors.items():
            kind = name.rpartition(".")[2]
            if kind not in KINDS:
                raise StatisticsError(f"{path}: {name}: does not end in one of {', '.join(KINDS)}")
            if not np.isfinite(value).all():
                raise StatisticsError(f"{path}: {name}: has NaN or infinite elements")
            if kind.endswith("_scale"):
                if value.ndim != 1 or (value < 0).any():
                    raise StatisticsError(f"{path}: {name}: is not a vector of nonnegative scales")
                continue
            if kind == "element_weights":
                if value.ndim != 2 or (value < 0).any():
                    raise StatisticsError(f"{path}: {name}: is not a matrix of nonnegative weights")
                continue
            if value.ndim != 2 or value.shape[0] != value.shape[1]:
                raise StatisticsError(f"{path}: {name}: is {list(value.shape)}, not square")
            diagonal = value.diagonal()
            if (diagonal < 0).any() or np.abs(value - value.T).max(initial=0) > 1e-5 * diagonal.max(initial=0):
                raise StatisticsError(f"{path}: {name}: is not a second moment: it is not symmetric, or its diagonal is negative")


def opened(path: Path | str) -> Any:
    """A safetensors file, open for reading NumPy arrays.

    Raises
    ------
    StatisticsError
        if the file can't be read or is not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, "np")
    except OSError:
        raise StatisticsError(f"{path}: can't be read; give a statistics file, which 'calibrate' writes") from None
    except SafetensorError as error:
        raise StatisticsError(f"{path}: is not a statistics file ({error}); give one that 'calibrate' wrote") from None


def tokens_per_dimension(path: Path | str) -> float:
    """The number of tokens over the size of the largest Gram matrix in a statistics file; infinite if there is none."""
    largest = 0
    with opened(path) as file:
        for name in file.keys():
            if name.endswith("_gram"):
                shape = file.get_slice(name).get_shape()
                largest = max(largest, shape[0] if len(shape) == 2 else triangle_size(shape[0]))
        return int(file.metadata().get("tokens", 0)) / largest if largest else float("inf")


def packed(gram: np.ndarray) -> np.ndarray:
    """The upper triangle of a symmetric matrix ``[n, n]``, row by row: ``[n (n + 1) / 2]``."""
    return gram[np.triu_indices(len(gram))]


def triangle_size(length: int) -> int:
    """The rows of the matrix whose upper triangle has this many elements."""
    return (math.isqrt(8 * length + 1) - 1) // 2


def unpacked(triangle: np.ndarray) -> np.ndarray:
    """The symmetric matrix of an upper triangle.

    Raises
    ------
    ValueError
        if no triangle has this number of elements.
    """
    size = triangle_size(len(triangle))
    if size * (size + 1) // 2 != len(triangle):
        raise ValueError(f"{len(triangle)} elements do not form a triangle")
    gram = np.zeros((size, size), triangle.dtype)
    gram[np.triu_indices(size)] = triangle
    return gram + np.triu(gram, 1).T


def _unpacked(path: Path | str, name: str, value: np.ndarray) -> np.ndarray:
    if not name.endswith("_gram") or value.ndim != 1:
        return value
    try:
        return unpacked(value)
    except ValueError as error:
        raise StatisticsError(f"{path}: {name}: {error}") from None


def _same(path: Path | str, text: str | None) -> dict[str, str]:
    try:
        same = json.loads(text or "{}")
    except ValueError:
        same = None
    if not isinstance(same, dict) or not all(isinstance(stored, str) for stored in same.values()):
        raise StatisticsError(f"{path}: its metadata 'same' is not a JSON object of names")
    return same


def _ridge(path: Path | str, metadata: Mapping[str, str], name: str) -> float | None:
    if name not in metadata:
        return None
    try:
        value = float(metadata[name])
    except ValueError:
        value = -1.0
    if not (0 <= value < float("inf")):
        raise StatisticsError(f"{path}: its metadata '{name}' is not a number of at least 0")
    return value


def _renamed(name: str) -> str:
    """The name of a tensor in version 2."""
    matrix, dot, kind = name.rpartition(".")
    side, line, rest = kind.partition("_")
    return f"{matrix}{dot}{OLD_SIDES[side]}{line}{rest}" if side in OLD_SIDES and rest in ("gram", "scale") else name


def _names(path: Path | str, text: str | None) -> list[str] | None:
    if text is None:
        return None
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise StatisticsError(f"{path}: its metadata 'input_rows' is not a JSON list of names")
    return names
