"""Errors of MPO checkpoints and statistics files."""

from __future__ import annotations

from pathlib import Path


class CheckpointError(ValueError):
    """An MPO checkpoint that can't be read, or a model that does not fit it.

    Parameters
    ----------
    where
        the file or the tensor.
    reason
        what is wrong with it.
    """

    def __init__(self, where: Path | str, reason: str):
        super().__init__(f"{where}: {reason}")


class Contradiction(ValueError):
    """A member of a manifest contradicts the format; `Manifest.read` raises it as a `CheckpointError` with the file's path."""


class StatisticsError(ValueError):
    """An invalid statistics file."""
