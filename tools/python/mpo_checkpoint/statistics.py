"""The statistics file: what a conversion in a metric has to know of a network's layers. NumPy only.

For a matrix ``[I, J]`` as the checkpoint stores it, the sides are named by the axes, whatever the layer does with them:
``row`` is ``I``, ``column`` is ``J``. A side has a ``gram``, a symmetric second moment ``[n, n]``, or a ``scale`` ``[n]``,
the square root of its diagonal. Instead of sides, a matrix can have ``element_weights [I, J]``. The file also says of each
matrix which side the layer's inputs are on: the ridges of a conversion go by that.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FORMAT = "mpo-statistics"
VERSION = "2"
KINDS = ("row_gram", "row_scale", "column_gram", "column_scale", "element_weights")
# What version 1 called the sides, whatever the layer did with them.
OLD_SIDES = {"output": "row", "input": "column"}


class StatisticsError(ValueError):
    """A statistics file that is none, or that contradicts itself."""


@dataclass
class Statistics:
    """Second moments of layers, by matrix and side.

    Attributes:
        tensors: ``<matrix>.<side>_<kind>`` to ``[n, n]`` (gram) or ``[n]`` (scale). The names of version 1 are taken for
            what they are called now.
        samples: how many samples they are the means of.
        tokens: how many positions those samples have, padding not counted.
        description: what was run through which model, for people.
        skipped: matrices that were left out, because no sample reached them.
        input_rows: matrices whose rows are the layer's inputs; of all others the columns are. None when that is not known:
            a conversion then goes by the orientation of the model's format.
    """

    tensors: dict[str, np.ndarray]
    samples: int = 0
    tokens: int = 0
    description: str = ""
    skipped: list[str] = field(default_factory=list)
    input_rows: list[str] | None = None

    def __post_init__(self) -> None:
        renamed = {_renamed(name): value for name, value in self.tensors.items()}
        if len(renamed) < len(self.tensors):
            raise StatisticsError("a side of a matrix is there under its old name and its new one")
        self.tensors = renamed

    def inputs(self, matrix: str) -> str:
        """The side of a matrix that the layer's inputs are on, ``"row"`` or ``"column"``."""
        return "row" if matrix in (self.input_rows or ()) else "column"

    @property
    def matrices(self) -> list[str]:
        return sorted({name.rpartition(".")[0] for name in self.tensors})

    def save(self, path: Path | str, dtype: np.dtype | type = np.float32) -> None:
        """Writes the file; it appears whole or not at all."""
        from safetensors.numpy import save_file

        path = Path(path)
        self.validate(path)
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "samples": str(self.samples),
            "tokens": str(self.tokens),
            "description": self.description,
        }
        if self.input_rows is not None:
            metadata["input_rows"] = json.dumps(sorted(self.input_rows), ensure_ascii=False)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            save_file(
                {name: np.ascontiguousarray(value, dtype) for name, value in self.tensors.items()},
                temporary,
                metadata,
            )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path | str) -> Statistics:
        """Reads and checks a file.

        Raises:
            StatisticsError: for what is no statistics file, or has values a second moment can't have.
        """
        from safetensors import safe_open

        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise StatisticsError(f"{path}: is no statistics file: its metadata have no 'format' '{FORMAT}'")
            if metadata.get("version", "1").partition(".")[0] not in ("1", VERSION):
                raise StatisticsError(f"{path}: has version {metadata['version']}; versions 1 and {VERSION} can be read")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        statistics = cls(
            tensors,
            int(metadata.get("samples", 0)),
            int(metadata.get("tokens", 0)),
            metadata.get("description", ""),
            input_rows=_names(path, metadata.get("input_rows")),
        )
        statistics.validate(path)
        return statistics

    def validate(self, path: Path | str) -> None:
        """Names, shapes, finite values, symmetry and a diagonal that is not negative."""
        for name, value in self.tensors.items():
            kind = name.rpartition(".")[2]
            if kind not in KINDS:
                raise StatisticsError(f"{path}: {name}: does not end in one of {', '.join(KINDS)}")
            if not np.isfinite(value).all():
                raise StatisticsError(f"{path}: {name}: has NaN or infinite elements")
            if kind.endswith("_scale"):
                if value.ndim != 1 or (value < 0).any():
                    raise StatisticsError(f"{path}: {name}: is no vector of scales, which can't be negative")
                continue
            if kind == "element_weights":
                if value.ndim != 2 or (value < 0).any():
                    raise StatisticsError(f"{path}: {name}: is no matrix of weights, which can't be negative")
                continue
            if value.ndim != 2 or value.shape[0] != value.shape[1]:
                raise StatisticsError(f"{path}: {name}: is {list(value.shape)}, not square")
            diagonal = value.diagonal()
            if (diagonal < 0).any() or np.abs(value - value.T).max(initial=0) > 1e-5 * diagonal.max(initial=0):
                raise StatisticsError(f"{path}: {name}: is no second moment: not symmetric, or negative diagonal")


def _renamed(name: str) -> str:
    """A tensor's name as it is now."""
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
        raise StatisticsError(f"{path}: its metadata 'input_rows' is no JSON list of names")
    return names
