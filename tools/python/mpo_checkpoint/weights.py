"""Builds the weights of layers from the operators of a checkpoint; weights share the cores that operators share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import gauge
from .block_weight import MPOBlockWeight
from .checkpoint import MPOCheckpoint
from .compact_weight import CompactMPOWeight
from .encoding import Encoding
from .integer_matrix import IntegerMatrix
from .integers import GroupedArray, IntegerArray, ScaledArray
from .mpo_matrix import MPOMatrix
from .mpo_weight import MPOWeight
from .records import Basis, CoreRecord, OperatorRecord, TensorRecord
from .side_basis import Constant, SideBasis
from .torch_entries import digest_of, tensor_of


@dataclass(frozen=True)
class Origin:
    """What an `MPOWeight` was loaded from: the name of its operator, and the digests of its cores when they were loaded."""

    operator: str
    digests: tuple[str, ...]


class WeightBuilder:
    """Builds the weights of one model.

    Parameters
    ----------
    checkpoint
        the checkpoint.
    trainable
        which cores will be trained, see `load_into`. An operator in the gauge compact that will be trained becomes canonical (by
        QR in float64), unless it shares a core with another: then its cores are whole but otherwise unchanged. Other low-rank
        operators stay compact. The encoding ``grouped`` stays integers, frozen, unless inner cores are trained; ``scaled`` stays
        integers if no core is trained.
    keeps_matrix
        whether the weights may keep their matrix in memory, see `MPOMatrix`.
    """

    def __init__(self, checkpoint: MPOCheckpoint, trainable: str, keeps_matrix: bool):
        self.checkpoint, self.trainable, self.keeps_matrix = checkpoint, trainable, keeps_matrix
        self._shared = shared_cores(checkpoint)
        self._weights: dict[tuple[str, ...], MPOMatrix] = {}
        self._parameters: dict[tuple[str, ...], nn.Parameter] = {}
        self._integers: dict[tuple[str, ...], IntegerArray] = {}
        self._constants: dict[tuple[str, ...], Constant] = {}

    def weight(self, tensor: TensorRecord, like: Tensor) -> MPOMatrix:
        """The weight of a tensor that `is_held`, with the dtype and the device of the tensor ``like``."""
        key = ("tensor", tensor.name, *_place(like))
        if tensor.kind == "dense" and key not in self._weights:
            assert tensor.encoding is not None
            array = self._array(tensor, tensor.encoding, like)
            self._weights[key] = IntegerMatrix(array, self.keeps_matrix)
        elif key not in self._weights:
            operators = {name: self._operator(self.checkpoint.operators[name], like) for name in tensor.operators}
            first = tensor.blocks[0][0]
            is_whole = len(tensor.blocks) == len(tensor.blocks[0]) == 1 and (
                first.shape == self.checkpoint.operators[first.operator].matrix_shape
            )
            self._weights[key] = (
                operators[first.operator] if is_whole else MPOBlockWeight(operators, tensor.blocks, self.keeps_matrix)
            )
        return self._weights[key]

    def is_held(self, tensor: TensorRecord) -> bool:
        """Whether the model holds the matrix of a tensor as cores or as integers, and not as a dense parameter."""
        if tensor.kind == "dense":
            assert tensor.encoding is not None
            return len(tensor.shape) == 2 and self._stays_integers(tensor.encoding)
        return tensor.kind == "mpo" and tensor.matrix_shape == tensor.shape

    def _stays_integers(self, encoding: Encoding) -> bool:
        return (encoding.kind == "grouped" and self.trainable != "inner") or (
            encoding.kind == "scaled" and self.trainable == "none"
        )

    def _has_integers(self, operator: OperatorRecord) -> bool:
        return any(self._stays_integers(self.checkpoint.cores[name].encoding) for name in operator.chain_names)

    def _array(self, record: CoreRecord | TensorRecord, encoding: Encoding, like: Tensor, is_whole: bool = True) -> IntegerArray:
        """The integers of a core or a dense tensor. If a pivoted core need not be whole, only those of its stored values."""
        key = (record.name, str(is_whole), *_place(like))
        if key in self._integers:
            return self._integers[key]
        entries, where = self.checkpoint.entries(record), f"{self.checkpoint.path}: {record.name}"
        encoding.integers(entries, record.name, where)  # raises if they are invalid
        codes, scales = tensor_of(entries[record.name]), tensor_of(entries[f"{record.name}.scales"])
        shape = encoding.value_shape(record.shape)
        rest: dict[str, Any] = {}
        if is_whole and encoding.pivots:
            pivots = torch.from_numpy(encoding.pivot_indices(entries, record.name, record.shape, where))
            rest = {"pivots": pivots, "side": encoding.pivots, "whole_shape": record.shape}
        if encoding.kind == "grouped":
            self._integers[key] = GroupedArray(
                codes, scales, shape, like, encoding.bits, encoding.group, encoding.columns, **rest
            )
        else:
            self._integers[key] = ScaledArray(codes, scales, shape, like, **rest)
        return self._integers[key]

    def _core(self, name: str, like: Tensor) -> nn.Parameter | IntegerArray:
        """A whole core: integers if it stays integers, otherwise a parameter."""
        core = self.checkpoint.cores[name]
        if self._stays_integers(core.encoding) and core.value_count:
            return self._array(core, core.encoding, like)
        return self._parameter(("whole", name), self.checkpoint.core(name), like)

    def _operator(self, operator: OperatorRecord, like: Tensor) -> MPOWeight:
        key = ("operator", operator.name, *_place(like))
        if key not in self._weights:
            bases = [self._basis(operator.row_basis, like), self._basis(operator.column_basis, like)]
            weight = (
                self._deepened(operator, like, bases)
                or self._compact(operator, like, bases)
                or self._whole(operator, like, bases)
            )
            weight.origin = Origin(operator.name, core_digests(weight))
            self._weights[key] = weight
            self.checkpoint.release()
        return self._weights[key]

    def _deepened(self, operator: OperatorRecord, like: Tensor, bases: list[SideBasis | None]) -> MPOWeight | None:
        """A low-rank operator of two sites with a square core put between its frames, if inner cores are trained.

        None for any other operator, for one of full rank, and for one that shares a core.
        """
        is_shared = not self._shared.isdisjoint(operator.chain_names)
        bond = operator.bonds[0]
        if self.trainable != "inner" or not _is_low_rank(operator) or is_shared or bond == min(operator.matrix_shape):
            return None
        left, right = self.checkpoint.chain(operator)
        chain = gauge.deep([left, np.eye(bond)[:, None, None], right])
        keys = [("deepened", f"{operator.name}.{k}") for k in range(3)]
        cores = [self._parameter(key, core, like) for key, core in zip(keys, chain)]
        weight = MPOWeight(cores, operator.matrix_shape, 2 * operator.central, self.keeps_matrix, *bases)
        weight.is_deepened = True
        return weight

    def _compact(
        self, operator: OperatorRecord, like: Tensor, bases: list[SideBasis | None]
    ) -> CompactMPOWeight | None:
        """A low-rank operator of two sites in the gauge compact; None for any other, and if its cores are trained."""
        if operator.gauge != "compact" or not _is_low_rank(operator):
            return None
        if self.trainable not in ("none", "inner") and not self._has_integers(operator):
            return None
        name = operator.cores[1 - operator.central]
        core = self.checkpoint.cores[name]
        entries, where = self.checkpoint.entries(core), f"{self.checkpoint.path}: {name}"
        if self._stays_integers(core.encoding) and core.value_count:
            values: nn.Parameter | IntegerArray = self._array(core, core.encoding, like, is_whole=False)
            pivots = core.encoding.pivot_indices(entries, name, core.shape, where)
        else:
            floats, pivots = core.encoding.parts(entries, name, core.shape, where)
            values = self._parameter(("values", name), floats, like)
        return CompactMPOWeight(
            values,
            torch.from_numpy(pivots).to(like.device),
            self._core(operator.cores[operator.central], like),
            operator.central,
            self.keeps_matrix,
            *bases,
        )

    def _whole(self, operator: OperatorRecord, like: Tensor, bases: list[SideBasis | None]) -> MPOWeight:
        is_shared = not self._shared.isdisjoint(operator.chain_names)
        if self._has_integers(operator):
            cores = [self._core(name, like) for name in operator.cores]
            if operator.gauge == "spectral":
                central = self.checkpoint.chain(operator)[operator.central]
                cores[operator.central] = self._parameter(("central", operator.name), central, like)
        else:
            chain = self.checkpoint.chain(operator)
            if operator.gauge == "compact" and self.trainable != "none" and not is_shared:
                chain = gauge.canonical(chain, operator.central)
            keys = [("whole", name) for name in operator.cores]
            if operator.gauge == "spectral":  # its central core includes the singular values, so it is not the stored one
                keys[operator.central] = ("central", operator.name)
            cores = [self._parameter(key, core, like) for key, core in zip(keys, chain)]
        weight = MPOWeight(cores, operator.matrix_shape, operator.central, self.keeps_matrix, *bases)
        weight.shares_cores = is_shared
        return weight

    def _parameter(self, key: tuple[str, str], array: np.ndarray, like: Tensor) -> nn.Parameter:
        place = (*key, *_place(like))
        if place not in self._parameters:
            self._parameters[place] = nn.Parameter(torch.from_numpy(np.array(array)).to(like))
        return self._parameters[place]

    def _basis(self, basis: Basis, like: Tensor) -> SideBasis | None:
        return (
            SideBasis(**{role: self._constant(name, like) for role, name in basis.names.items()})
            if basis.names
            else None
        )

    def _constant(self, name: str, like: Tensor) -> Constant:
        key = (name, *_place(like))
        if key not in self._constants:
            value = torch.from_numpy(np.array(self.checkpoint.core(name)))
            is_index = self.checkpoint.cores[name].role == "permutation"
            self._constants[key] = Constant(value.to(like.device) if is_index else value.to(like))
        return self._constants[key]


def core_digests(weight: MPOWeight) -> tuple[str, ...]:
    """The digests of a weight's cores, which tell which of them changed."""
    return tuple(
        digest_of(core.codes) + digest_of(core.scale_bytes) if isinstance(core, IntegerArray) else digest_of(core)
        for core in weight.stored_cores
    )


def _is_low_rank(operator: OperatorRecord) -> bool:
    """Whether an operator has two sites, one with the rows and one with the columns."""
    sides = (operator.row_factors[0], operator.column_factors[-1])
    return len(operator.cores) == 2 and operator.padded_shape == operator.matrix_shape == sides


def shared_cores(checkpoint: MPOCheckpoint) -> set[str]:
    """The names of cores and singular values that chains use in more than one place."""
    counts = Counter(name for operator in checkpoint.operators.values() for name in operator.chain_names)
    return {name for name, count in counts.items() if count > 1}


def stored_count(checkpoint: MPOCheckpoint, tensors: set[str]) -> int:
    """How many numbers the checkpoint stores for the named tensors, none of which is tied; each core counts once."""
    records = [checkpoint.tensors[name] for name in tensors]
    operators = {name for record in records for name in record.operators}
    cores = {core for name in operators for core in checkpoint.operators[name].core_names}
    dense = sum(prod(record.shape) for record in records if record.kind == "dense")
    return dense + sum(checkpoint.cores[name].value_count for name in cores)


def _place(like: Tensor) -> tuple[str, str]:
    return str(like.dtype), str(like.device)
