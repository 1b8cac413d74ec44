"""How `save` writes an adapter: as one more term in each block of its tensor."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from . import gauge
from .adapters import Adapter
from .encoding import Encoding
from .errors import CheckpointError
from .records import CoreRecord, OperatorRecord, TensorRecord, central_index, full_bonds
from .safetensors_file import Entry

Cores = dict[str, tuple[CoreRecord, dict[str, Entry]]]


def adapter_operator(adapter: Adapter, name: str) -> tuple[OperatorRecord, Cores]:
    """The operator of an adapter in the gauge canonical, and its cores with their entries."""
    chain = [core.detach().to("cpu").double().numpy() for core in adapter.whole_cores()]
    dtype = "F64" if adapter.dtype.itemsize == 8 else "F32"
    return _operator(name, gauge.canonical(chain, adapter.central), Encoding.plain(dtype), "canonical", [None] * len(chain))


def dense_operator(name: str, matrix: np.ndarray, encoding: Encoding) -> tuple[OperatorRecord, Cores]:
    """A matrix ``[I, J]`` as an operator of full rank in the gauge compact.

    One core is the matrix itself; the other is the identity, which is not stored.
    """
    rows, columns = matrix.shape
    if rows < columns:
        chain, pivots = [np.eye(rows)[None, :, None], matrix[:, None, :, None]], [np.arange(rows), None]
    else:
        chain, pivots = [matrix[None, :, None], np.eye(columns)[:, None, :, None]], [None, np.arange(columns)]
    return _operator(name, chain, encoding, "compact", pivots)


def added(tensor: TensorRecord, operators: dict[str, OperatorRecord], base: str | None, adapter: str) -> TensorRecord:
    """A tensor with an adapter as one more term in each of its blocks.

    Parameters
    ----------
    operators
        all operators by name, including the new ones.
    base
        the name of the operator of full rank that replaces a dense tensor; None for a tensor made of operators.
    adapter
        the name of the adapter's operator.
    """
    dropped = ("encoding", "packed", "relative_error", "metric_relative_error", "svd_relative_error")
    raw = {key: value for key, value in tensor.raw.items() if key not in dropped}
    blocks = [list(block) for block in raw.get("blocks") or [[{"operator": base}]]]
    sizes = [block[0].shape[0] for block in tensor.blocks] or [tensor.shape[0]]
    start = 0
    for block, size in zip(blocks, sizes):
        block.append({"operator": adapter} | ({"rows": [start, start + size]} if len(blocks) > 1 else {}))
        start += size
    matrix_shape = list(operators[adapter].matrix_shape)
    return TensorRecord.parse({**raw, "kind": "mpo", "matrix_shape": matrix_shape, "blocks": blocks}, operators)


def _operator(
    name: str, chain: list[np.ndarray], encoding: Encoding, form: str, pivots: list[np.ndarray | None]
) -> tuple[OperatorRecord, Cores]:
    rows, columns = (tuple(core.shape[axis] for core in chain) for axis in (1, 2))
    central = central_index(rows, columns)
    names = [f"{name}.cores.{k}" for k in range(len(chain))]
    raw: dict[str, Any] = {
        "name": name,
        "matrix_shape": [prod(rows), prod(columns)],
        "padded_shape": [prod(rows), prod(columns)],
        "row_factors": list(rows),
        "column_factors": list(columns),
        "bonds": [core.shape[3] for core in chain[:-1]],
        "full_bonds": list(full_bonds(rows, columns)),
        "central": central,
        "gauge": form,
        "cores": names,
    }
    operator, cores = OperatorRecord.parse(raw), {}
    for site, (core, array) in enumerate(zip(names, chain)):
        own = encoding if pivots[site] is None else replace(encoding, pivots=operator.pivot_side(site))
        own, entries = own.encode(core, array, pivots[site])
        cores[core] = CoreRecord(core, "central" if site == central else "auxiliary", array.shape, own), entries
    return operator, cores


def free_name(name: str, taken: set[str]) -> str:
    """A name, not yet taken, for the operator of a tensor's adapter.

    Raises
    ------
    CheckpointError
        if the tensor has a thousand adapters.
    """
    candidates = [f"{name}.adapter", *(f"{name}.adapter.{k}" for k in range(2, 1000))]
    found = next((candidate for candidate in candidates if candidate not in taken), None)
    if found is None:
        raise CheckpointError(name, "already has a thousand adapters; restore the checkpoint and convert it again")
    return found
