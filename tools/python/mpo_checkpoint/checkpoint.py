"""MPO checkpoints, read with NumPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from .errors import CheckpointError
from .manifest import Manifest
from .packing import unpacked
from .records import Basis, CoreRecord, OperatorRecord, TensorRecord
from .safetensors_file import Entry, read_entries, release


class MPOCheckpoint:
    """An MPO checkpoint open for reading; its files are mapped.

    Opening a checkpoint checks what FORMAT.md asks a reader to check, except the SHA-256 of the files and the values of the
    arrays; `verify` checks those too.

    Parameters
    ----------
    path
        the folder.
    companions
        whether the files that accompany the tensors must exist too.

    Attributes
    ----------
    tensors, operators, cores
        the records of the manifest by name.

    Raises
    ------
    CheckpointError
        if the folder is not a valid MPO checkpoint.
    """

    def __init__(self, path: Path | str, companions: bool = True):
        self.path = Path(path)
        self.manifest = Manifest.read(self.path, companions)
        self.tensors, self.operators, self.cores = self.manifest.tensors, self.manifest.operators, self.manifest.cores
        self._entries: dict[str, Entry] = {}
        self._mapped: list[Entry] = []
        for shard in self.manifest.shards:
            entries = read_entries(self.path / shard)
            self._mapped += [next(iter(entries.values()))] if entries else []
            for name, entry in entries.items():
                if name in self._entries:
                    raise CheckpointError(self.path / shard, f"{name} is in another shard too")
                self._entries[name] = entry
        self._check_entries()

    def __iter__(self) -> Iterator[TensorRecord]:
        return iter(self.tensors.values())

    def _check_entries(self) -> None:
        expected = self.manifest.entries()
        for name, (dtype, shape) in expected.items():
            if name not in self._entries:
                raise CheckpointError(self.path, f"{name} is missing from the shards")
            entry = self._entries[name]
            if (entry.dtype, entry.shape) != (dtype, shape):
                raise CheckpointError(
                    f"{self.path}: {name}",
                    f"is {entry.dtype} {list(entry.shape)}, but the manifest says {dtype} {list(shape)}",
                )
        if rest := self._entries.keys() - expected.keys():
            raise CheckpointError(self.path, f"{min(rest)} is in the shards but not in the manifest")

    def verify(self) -> None:
        """Compares the SHA-256 of every file with the manifest, and reads every core and dense tensor.

        Raises
        ------
        CheckpointError
            for the first damaged file or tensor.
        """
        self.manifest.check_checksums()
        for name in self.cores:
            self.core(name)
        for tensor in self:
            if tensor.kind == "dense":
                self.dense(tensor)

    def release(self) -> None:
        """Removes the shards from memory; reading them again reads the disk."""
        for entry in self._mapped:
            release(entry)

    def holder(self, tensor: TensorRecord) -> TensorRecord:
        """The tensor that holds the elements of another.

        Parameters
        ----------
        tensor
            a tensor of this checkpoint.

        Returns
        -------
        TensorRecord
            the tensor itself, or the one it is tied to.
        """
        return tensor if tensor.tied_to is None else self.tensors[tensor.tied_to]

    def entries(self, record: TensorRecord | CoreRecord) -> dict[str, Entry]:
        """The entries of a core or a dense tensor, unpacked.

        Parameters
        ----------
        record
            the record of the core or the tensor.

        Returns
        -------
        dict of str to Entry
            the entries by their names in the shards.

        Raises
        ------
        CheckpointError
            if a packed entry is damaged.
        """
        return {
            name: unpacked(self._entries[name], record.packed[name], f"{self.path}: {name}")
            if name in record.packed
            else self._entries[name]
            for name in record.entries
        }

    def core(self, name: str) -> np.ndarray:
        """A core as a whole array, decoded.

        Parameters
        ----------
        name
            the name of the core.

        Returns
        -------
        ndarray
            ``[d, i, j, d']``; ``[n, n]`` for a basis; ``[n]`` for scales or a permutation; ``[d]`` for singular values. The
            dtype is int64 for permutations, float64 for F64, and float32 for all others.

        Raises
        ------
        CheckpointError
            if the core is damaged.
        """
        core, where = self.cores[name], f"{self.path}: {name}"
        array = core.encoding.decode(self.entries(core), name, core.shape, where)
        if core.role == "permutation":
            indices = array.astype(np.int64)
            if not np.array_equal(np.sort(indices), np.arange(len(indices))):
                raise CheckpointError(
                    where, "is a permutation that does not have every index once; convert the model again"
                )
            return indices
        return array

    def chain(self, operator: OperatorRecord) -> list[np.ndarray]:
        """The cores of an operator, with the singular values multiplied into the central one.

        Parameters
        ----------
        operator
            one of ``operators``.

        Returns
        -------
        list of ndarray
            ``[d, i, j, d']`` each; the first d and the last d' are 1.

        Raises
        ------
        CheckpointError
            if a core is damaged.
        """
        cores = [self.core(name) for name in operator.cores]
        if operator.singular_values is not None:
            sigma = self.core(operator.singular_values)
            central = cores[operator.central]
            cores[operator.central] = central * (sigma if operator.central == 0 else sigma[:, None, None, None])
        return cores

    def matrix(self, operator: OperatorRecord, dtype: type = np.float32) -> np.ndarray:
        """The matrix that an operator stands for.

        Parameters
        ----------
        operator
            one of ``operators``.
        dtype
            the dtype of the products; float64 if a core is F64.

        Returns
        -------
        ndarray
            ``[I, J]``, with the bases of its sides applied.

        Raises
        ------
        CheckpointError
            if a core is damaged.
        """
        cores = [core.astype(np.result_type(core, dtype), copy=False) for core in self.chain(operator)]
        matrix = matrix_of(cores, operator.matrix_shape)
        matrix = self._with_basis(matrix, operator.row_basis)
        return self._with_basis(matrix.T, operator.column_basis).T

    def _with_basis(self, matrix: np.ndarray, basis: Basis) -> np.ndarray:
        if basis.scale is not None:
            matrix = self.core(basis.scale)[:, None] * matrix
        if basis.basis is not None:
            matrix = self.core(basis.basis) @ matrix
        return matrix if basis.permutation is None else matrix[self.core(basis.permutation)]

    def dense(self, tensor: TensorRecord) -> Entry:
        """The elements of a dense tensor.

        Parameters
        ----------
        tensor
            a tensor whose ``kind`` is ``"dense"``.

        Returns
        -------
        Entry
            the bytes of the elements in the tensor's dtype.

        Raises
        ------
        CheckpointError
            if the tensor is damaged.
        """
        assert tensor.encoding is not None
        entries = self.entries(tensor)
        if (tensor.encoding.kind, tensor.encoding.dtype) == ("plain", tensor.dtype):
            return entries[tensor.name]
        values = tensor.encoding.decode(entries, tensor.name, tensor.shape, f"{self.path}: {tensor.name}")
        return Entry.of(values, tensor.dtype)

    def tensor(self, name: str) -> np.ndarray:
        """A tensor of the source, restored.

        Parameters
        ----------
        name
            the name of a tensor of the source; tied tensors have names too.

        Returns
        -------
        ndarray
            the tensor in its shape and dtype in the source; float32 for BF16, which NumPy lacks.

        Raises
        ------
        CheckpointError
            if there is no such tensor, or if it is damaged.
        """
        if name not in self.tensors:
            raise CheckpointError(self.path, f"has no tensor {name}")
        return self._restored(self.tensors[name], {})

    def _restored(self, tensor: TensorRecord, matrices: dict[str, np.ndarray]) -> np.ndarray:
        holder = self.holder(tensor)
        if holder.kind == "dense":
            return self.dense(holder).numpy()
        dtype = {"F64": np.float64, "F16": np.float16}.get(holder.dtype, np.float32)

        own = {}
        for name in holder.operators:
            own[name] = matrices.get(name)
            if own[name] is None:
                own[name] = self.matrix(self.operators[name], np.result_type(dtype, np.float32).type)
            if name in self._shared_operators:
                matrices[name] = own[name]
        blocks = []
        for block in holder.blocks:
            terms = [own[term.operator][slice(*term.rows), slice(*term.columns)] for term in block]
            blocks.append(sum(terms[1:], start=terms[0]))
        result = np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
        return np.ascontiguousarray(result).reshape(tensor.shape).astype(dtype)

    @cached_property
    def _shared_operators(self) -> set[str]:
        """The names of operators that several tensors use."""
        counts = Counter(name for tensor in self for name in tensor.operators)
        return {name for name, count in counts.items() if count > 1}


def load_dense(path: Path | str) -> dict[str, np.ndarray]:
    """All tensors of an MPO checkpoint, restored, in the order of the source.

    Matrices are multiplied out in float32, or in float64 if their cores or their source are float64. BF16 tensors are returned
    as float32.

    Parameters
    ----------
    path
        the checkpoint's folder.

    Returns
    -------
    dict of str to ndarray
        the tensors by name, each in the shape that it has in the source.

    Raises
    ------
    CheckpointError
        if the folder is not a valid MPO checkpoint.
    """
    checkpoint = MPOCheckpoint(path)
    matrices: dict[str, np.ndarray] = {}
    return {tensor.name: checkpoint._restored(tensor, matrices) for tensor in checkpoint}


def matrix_of(cores: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The matrix of a chain.

    Parameters
    ----------
    cores
        ``[d, i, j, d']`` each.
    shape
        ``(I, J)``, at most ``∏ i`` and ``∏ j``.

    Returns
    -------
    ndarray
        ``[I, J]``, without padding.
    """
    result = np.ones((1, 1, 1, 1), cores[0].dtype)
    for core in cores:
        left, rows, columns, bond = result.shape
        _, i, j, right = core.shape
        product = result.reshape(-1, bond) @ core.reshape(bond, -1)
        result = product.reshape(left, rows, columns, i, j, right).swapaxes(2, 3)
        result = result.reshape(left, rows * i, columns * j, right)
    return np.ascontiguousarray(result[0, : shape[0], : shape[1], 0])
