"""Writes statistics files, one tensor at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import StatisticsError


class StatisticsWriter:
    """Writes a statistics file tensor by tensor, with one tensor in memory at a time. It appears whole or not at all.

    Use it as a context. If the context ends without a call of `finish`, no file remains (except ``temporary``).

    Parameters
    ----------
    path
        the file to write.
    names
        the names of all tensors that may be added or that the metadata may mention; they decide how much room the header gets.
    dtype
        the dtype of the numbers in the file.
    temporary
        the file in which tensors are collected. By default it is beside ``path`` and is removed if it is not finished.
    state
        the `state` of an earlier writer of this temporary file. The new writer continues there; tensors after it are dropped.
    """

    def __init__(
        self,
        path: Path | str,
        names: Iterable[str],
        dtype: np.dtype | type | str = np.float32,
        *,
        temporary: Path | None = None,
        state: Mapping[str, Any] | None = None,
    ):
        self.path = Path(path)
        self.dtype = np.dtype(dtype)
        # In the header each tensor takes its name (escaped) and some numbers, and the metadata may contain the name again.
        self._room = 65536 + sum(400 + 14 * len(name) for name in names)
        self._is_kept = temporary is not None
        self._temporary = temporary or self.path.with_name(f".{self.path.name}.{os.getpid()}")
        self._is_resumed = state is not None
        self._header: dict[str, object] = dict(state["header"]) if state else {}
        self._end: int = state["end"] if state else 0

    def __enter__(self) -> StatisticsWriter:
        self._file = open(self._temporary, "r+b" if self._is_resumed else "wb" if self._is_kept else "xb")
        self._file.truncate(self._room + self._end)
        self._file.seek(self._room + self._end)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if not self._is_kept:
            self._temporary.unlink(missing_ok=True)

    @property
    def state(self) -> dict[str, Any]:
        """The state with which a later writer can continue the temporary file. All tensors so far are in the file."""
        self._file.flush()
        return {"header": self._header, "end": self._end}

    def add(self, name: str, value: np.ndarray) -> None:
        """Writes a tensor."""
        value = np.ascontiguousarray(value, self.dtype)
        end = self._end + value.nbytes
        dtype = {2: "F16", 4: "F32", 8: "F64"}[self.dtype.itemsize]
        self._header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [self._end, end]}
        self._file.write(value.astype(self.dtype.newbyteorder("<"), copy=False).data)
        self._end = end

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Writes the header and moves the file to its path.

        Raises
        ------
        StatisticsError
            if the metadata takes more room than ``names`` reserved.
        """
        header = json.dumps({"__metadata__": dict(metadata), **self._header}).encode()
        room = self._room - 8
        if len(header) > room:
            raise StatisticsError(f"{self.path}: its metadata has {len(header)} bytes, but there is room for {room}")
        self._file.seek(0)
        self._file.write(room.to_bytes(8, "little") + header.ljust(room))
        self._file.close()
        os.replace(self._temporary, self.path)
