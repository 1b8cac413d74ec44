"""MPO checkpoints, read with NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .errors import CheckpointError
from .manifest import Manifest, TensorRecord
from .packing import dequantized, unpacked
from .safetensors_file import Entry, read_entries


class MPOCheckpoint:
    """An MPO checkpoint open for reading; its files are mapped.

    Opening it checks everything FORMAT.md asks a reader to, but the checksums of the shards.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.manifest = Manifest.read(self.path)
        self.records = {record.name: record for record in self.manifest.tensors}
        self._entries: dict[str, Entry] = {}
        for shard in self.manifest.shards:
            for name, entry in read_entries(self.path / shard).items():
                if name in self._entries:
                    raise CheckpointError(self.path / shard, f"{name} is in another shard too")
                self._entries[name] = entry
        self._check_entries()

    def __iter__(self) -> Iterator[TensorRecord]:
        return iter(self.manifest.tensors)

    def _check_entries(self) -> None:
        rest = set(self._entries)
        for record in self:
            for name, (dtype, shape) in record.entries.items():
                if name not in rest:
                    raise CheckpointError(self.path, f"{name} is missing from the shards")
                rest.remove(name)
                packed, entry = record.packed.get(name), self._entries[name]
                expected = (dtype, shape) if packed is None else ("U8", (packed["bytes"],))
                if (entry.dtype, entry.shape) != expected:
                    found = f"{entry.dtype} {list(entry.shape)}"
                    raise CheckpointError(
                        f"{self.path}: {name}", f"is {found}, the manifest calls for {expected[0]} {list(expected[1])}"
                    )
        if rest:
            raise CheckpointError(self.path, f"{min(rest)} is in the shards but not in the manifest")

    def holder(self, record: TensorRecord) -> TensorRecord:
        """The record that holds the elements: itself, or the one it is tied to."""
        return record if record.tied_to is None else self.records[record.tied_to]

    def entries(self, record: TensorRecord) -> list[Entry]:
        """The cores of a tensor kept as cores, a quantised one as F32; the tensor itself of one kept dense."""
        entries = self.stored_entries(record)
        if record.scales_shape is not None:
            *entries, scales = entries
            where = f"{self.path}: {list(record.entries)[-1]}"
            entries[record.central] = dequantized(entries[record.central], scales, where)
        return entries

    def stored_entries(self, record: TensorRecord) -> list[Entry]:
        """The entries that the record calls for, unpacked."""
        return [
            unpacked(self._entries[name], record.packed[name], f"{self.path}: {name}")
            if name in record.packed
            else self._entries[name]
            for name in record.entries
        ]

    def tensor(self, name: str) -> np.ndarray:
        """A tensor, restored: of its source's dtype, but float32 for BF16, which NumPy does not have."""
        if name not in self.records:
            raise CheckpointError(self.path, f"has no tensor {name}")
        record = self.records[name]
        holder = self.holder(record)
        entries = self.entries(holder)
        if holder.kind == "dense":
            return entries[0].numpy()
        dtype = {"F64": np.float64, "F16": np.float16}.get(record.dtype, np.float32)
        cores = [entry.numpy().astype(np.result_type(entry.numpy(), np.float32, dtype)) for entry in entries]
        return matrix_of(cores, holder.matrix_shape).reshape(record.shape).astype(dtype)


def load_dense(path: Path | str) -> dict[str, np.ndarray]:
    """All tensors of an MPO checkpoint, restored, in the order of the source.

    Matrices are multiplied out in float32, or float64 where their cores or their source are. Tensors of dtype BF16 come
    as float32.

    Raises:
        CheckpointError: for what is no valid MPO checkpoint.
    """
    checkpoint = MPOCheckpoint(path)
    return {record.name: checkpoint.tensor(record.name) for record in checkpoint}


def matrix_of(cores: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """``[I, J]`` from cores ``[d_k, i_k, j_k, d_{k+1}]``, the padding clipped."""
    result = np.ones((1, 1, 1, 1), cores[0].dtype)
    for core in cores:
        left, rows, columns, bond = result.shape
        _, i, j, right = core.shape
        product = result.reshape(-1, bond) @ core.reshape(bond, -1)
        result = product.reshape(left, rows, columns, i, j, right).swapaxes(2, 3)
        result = result.reshape(left, rows * i, columns * j, right)
    return np.ascontiguousarray(result[0, : shape[0], : shape[1], 0])
