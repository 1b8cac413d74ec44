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

    Opening it checks everything FORMAT.md asks a reader to, but the checksums of the shards and what is found when an
    array is read; `verify` checks those.

    Parameters
    ----------
    path
        the folder.
    companions
        whether the files beside the tensors must be there too.

    Attributes
    ----------
    tensors, operators, cores
        the records of the manifest, by name.
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
                    f"is {entry.dtype} {list(entry.shape)}, the manifest calls for {dtype} {list(shape)}",
                )
        if rest := self._entries.keys() - expected.keys():
            raise CheckpointError(self.path, f"{min(rest)} is in the shards but not in the manifest")

    def verify(self) -> None:
        """Compares the checksum of every file and reads every core and dense tensor.

        Raises
        ------
        CheckpointError
            for what is damaged.
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
            of the core or of the tensor.

        Returns
        -------
        dict of str to Entry
            by their names in the shards.

        Raises
        ------
        CheckpointError
            for a packed entry that is damaged.
        """
        return {
            name: unpacked(self._entries[name], record.packed[name], f"{self.path}: {name}")
            if name in record.packed
            else self._entries[name]
            for name in record.entries
        }

    def core(self, name: str) -> np.ndarray:
        """A core, whole, in whatever encoding it is stored.

        Parameters
        ----------
        name
            of the core.

        Returns
        -------
        ndarray
            ``[d, i, j, d']``, of a basis ``[n, n]``, of scales or a permutation ``[n]``: F64 as float64, permutations as
            integers, all else as float32.

        Raises
        ------
        CheckpointError
            for one that is damaged.
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
        """The cores of an operator, singular values multiplied into the central one.

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
            for a core that is damaged.
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
            that it is multiplied out in; float64 where a core is F64.

        Returns
        -------
        ndarray
            ``[I, J]``, with the bases of its sides.

        Raises
        ------
        CheckpointError
            for a core that is damaged.
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
            one whose ``kind`` is ``"dense"``.

        Returns
        -------
        Entry
            its bytes in its dtype.

        Raises
        ------
        CheckpointError
            for what is damaged.
        """
        assert tensor.encoding is not None
        entries = self.entries(tensor)
        if (tensor.encoding.kind, tensor.encoding.dtype) == ("plain", tensor.dtype):
            return entries[tensor.name]
        values = tensor.encoding.decode(entries, tensor.name, tensor.shape, f"{self.path}: {tensor.name}")
        return Entry.of(values, tensor.dtype)

    def tensor(self, name: str) -> np.ndarray:
        """A tensor, restored.

        Parameters
        ----------
        name
            of a tensor of the source, tied ones too.

        Returns
        -------
        ndarray
            of its source's shape and dtype, but float32 for BF16, which NumPy does not have.

        Raises
        ------
        CheckpointError
            for a name that is not there, and for what is damaged.
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
        """Operators that several tensors are made of."""
        counts = Counter(name for tensor in self for name in tensor.operators)
        return {name for name, count in counts.items() if count > 1}


def load_dense(path: Path | str) -> dict[str, np.ndarray]:
    """All tensors of an MPO checkpoint, restored, in the order of the source.

    Matrices are multiplied out in float32, or float64 where their cores or their source are. Tensors of dtype BF16 come
    as float32.

    Parameters
    ----------
    path
        the checkpoint's folder.

    Returns
    -------
    dict of str to ndarray
        each of the shape that the tensor has in the source.

    Raises
    ------
    CheckpointError
        for what is not a valid MPO checkpoint.
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
        ``(I, J)``, not larger than the products of the i and the j.

    Returns
    -------
    ndarray
        ``[I, J]``, the padding clipped.
    """
    result = np.ones((1, 1, 1, 1), cores[0].dtype)
    for core in cores:
        left, rows, columns, bond = result.shape
        _, i, j, right = core.shape
        product = result.reshape(-1, bond) @ core.reshape(bond, -1)
        result = product.reshape(left, rows, columns, i, j, right).swapaxes(2, 3)
        result = result.reshape(left, rows * i, columns * j, right)
    return np.ascontiguousarray(result[0, : shape[0], : shape[1], 0])
