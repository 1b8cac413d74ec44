"""The records of tensors, operators and cores in a manifest, each checked on its own against FORMAT.md."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from .encoding import Encoding, Shape, Side
from .errors import Contradiction
from .packing import packing_problem
from .safetensors_file import BITS, FLOATING

ROLES = ("central", "auxiliary", "singular_values", "basis", "permutation", "scale")
GAUGES = ("compact", "canonical", "spectral")
_MAXIMUM_ELEMENTS = 1 << 57
_MAXIMUM_SIDE = 1 << 31

Packed = dict[str, dict[str, Any]]
"""The manifest's descriptions of packed entries, by the names of the entries."""


@dataclass(frozen=True)
class CoreRecord:
    """The record of one stored array.

    Attributes
    ----------
    role
        one of `ROLES`.
    shape
        the shape of the whole array: ``[d, i, j, d']`` for a core of a chain, ``[d]`` for singular values, ``[n, n]`` for a
        basis, ``[n]`` for a permutation or scales.
    """

    name: str
    role: str
    shape: Shape
    encoding: Encoding
    packed: Packed = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> CoreRecord:
        name, role = _text(raw, "name"), raw.get("role")
        if role not in ROLES:
            raise Contradiction(f"the core {name} has the unknown role '{role}'")
        shape = _sizes(raw["shape"], 1)
        axes = {"central": 4, "auxiliary": 4, "basis": 2}.get(role, 1)
        if shape is None or len(shape) != axes or prod(shape) >= _MAXIMUM_ELEMENTS:
            raise Contradiction(f"the core {name} has the shape {raw['shape']}, which can't be of its role '{role}'")
        encoding = Encoding.parse(raw["encoding"], shape, role, f"the core {name}")
        return cls(name, role, shape, encoding, _packed(raw, encoding.entries(name, shape)))

    @property
    def entries(self) -> dict[str, tuple[str, Shape]]:
        """Dtype and shape, before packing, of its entries, by name."""
        return self.encoding.entries(self.name, self.shape)

    @property
    def value_count(self) -> int:
        return self.encoding.value_count(self.shape)

    def json(self) -> dict[str, Any]:
        raw = {"name": self.name, "role": self.role, "shape": list(self.shape), "encoding": self.encoding.json()}
        return raw | ({"packed": list(self.packed.values())} if self.packed else {})


@dataclass(frozen=True)
class Basis:
    """The names of the cores between a side of a matrix and its chain: a ``basis`` or a ``permutation``, and a ``scale``."""

    basis: str | None = None
    permutation: str | None = None
    scale: str | None = None

    @classmethod
    def parse(cls, raw: Any, where: str) -> Basis:
        if raw is None:
            return cls()
        names = {role: raw.get(role) for role in ("basis", "permutation", "scale")}
        if names["basis"] is not None and names["permutation"] is not None:
            raise Contradiction(f"{where} has a basis and a permutation of the same side")
        return cls(**names)

    @property
    def names(self) -> dict[str, str]:
        """The names by role, without the roles that have no core."""
        return {role: name for role, name in vars(self).items() if name is not None}


@dataclass(frozen=True)
class OperatorRecord:
    """The record of a chain of cores that stands for a matrix ``[I, J]``. It names its cores, because operators may share them."""

    name: str
    matrix_shape: tuple[int, int]
    row_factors: Shape
    column_factors: Shape
    bonds: Shape
    central: int
    gauge: str
    cores: tuple[str, ...]
    singular_values: str | None
    row_basis: Basis
    column_basis: Basis
    raw: dict[str, Any]

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> OperatorRecord:
        name = _text(raw, "name")
        where = f"the operator {name}"
        lists = ("matrix_shape", "padded_shape", "row_factors", "column_factors", "bonds", "full_bonds")
        sizes = {key: _sizes(raw[key], 1) for key in lists}
        if bad := [key for key, value in sizes.items() if value is None]:
            raise Contradiction(f"{where} has no valid '{bad[0]}': {raw[bad[0]]}")
        matrix, padded, rows, columns, bonds, full = sizes.values()
        if len(rows) != len(columns) or len(rows) < 2 or len(bonds) != len(rows) - 1 or len(raw["cores"]) != len(rows):
            raise Contradiction(
                f"{where} has factors, bonds and cores of different numbers of sites, or fewer than two"
            )
        if padded != (prod(rows), prod(columns)) or len(matrix) != 2 or any(p < m for p, m in zip(padded, matrix)):
            raise Contradiction(f"{where} has a padded shape {list(padded)} that contradicts its factors or its matrix")
        is_factored = rows[0] > 1 and columns[-1] > 1 and prod(rows[1:]) == prod(columns[:-1]) == 1
        if not is_factored and any(i * j == 1 for i, j in zip(rows, columns)):
            raise Contradiction(f"{where} has a site with the factors 1 and 1; only a low-rank operator may have such sites, inside")
        if max(padded) >= _MAXIMUM_SIDE:
            raise Contradiction(f"{where} has a padded shape {list(padded)} with a side of 2^31 or more")
        operator = cls(
            name, matrix, rows, columns, bonds, raw["central"], raw["gauge"], tuple(raw["cores"]),
            raw.get("singular_values"), Basis.parse(raw.get("row_basis"), where), Basis.parse(raw.get("column_basis"), where),
            raw,
        )  # fmt: skip
        for left, i, j, right in operator.core_shapes:
            if right > left * i * j or left > i * j * right:
                raise Contradiction(f"{where} has bonds {list(bonds)}, which are larger than its factors allow")
        if full != full_bonds(rows, columns):
            raise Contradiction(
                f"{where} has the full bonds {list(full)}, but its factors give {list(full_bonds(rows, columns))}"
            )
        if type(operator.central) is not int or operator.central != central_index(rows, columns):
            raise Contradiction(
                f"{where} has the central core {operator.central}, but its factors give {central_index(rows, columns)}"
            )
        if operator.gauge not in GAUGES:
            raise Contradiction(f"{where} has the unknown gauge '{operator.gauge}': update mpo_checkpoint")
        if (operator.gauge == "spectral") != (operator.singular_values is not None):
            raise Contradiction(f"{where} is {operator.gauge}; an operator must have singular values if and only if it is spectral")
        return operator

    @property
    def core_shapes(self) -> list[tuple[int, int, int, int]]:
        """``[d, i, j, d']`` of every core of the chain."""
        bonds = (1, *self.bonds, 1)
        return list(zip(bonds, self.row_factors, self.column_factors, bonds[1:]))

    @property
    def padded_shape(self) -> tuple[int, int]:
        return prod(self.row_factors), prod(self.column_factors)

    @property
    def central_bond(self) -> int:
        """The index of the bond with the singular values: left of the central core, or right of it if that core is the first."""
        return max(0, self.central - 1)

    @property
    def basis_names(self) -> list[str]:
        return [*self.row_basis.names.values(), *self.column_basis.names.values()]

    @property
    def chain_names(self) -> list[str]:
        """The names of the cores of its chain, and of its singular values."""
        return [*self.cores, *([self.singular_values] if self.singular_values else [])]

    @property
    def core_names(self) -> list[str]:
        """The names of all its cores: the chain, singular values, bases."""
        return [*self.chain_names, *self.basis_names]

    def places(self) -> list[tuple[str, str, Shape]]:
        """Name, role and shape of every core that it names."""
        roles = ["central" if k == self.central else "auxiliary" for k in range(len(self.cores))]
        places: list[tuple[str, str, Shape]] = list(zip(self.cores, roles, self.core_shapes))
        if self.singular_values is not None:
            places.append((self.singular_values, "singular_values", (self.bonds[self.central_bond],)))
        for side, basis in zip(self.matrix_shape, (self.row_basis, self.column_basis)):
            for role, name in basis.names.items():
                places.append((name, role, (side, side) if role == "basis" else (side,)))
        return places

    def pivot_side(self, site: int) -> Side | None:
        """The side of the pivots of a core in the gauge compact; None for the central core."""
        return None if site == self.central else "left" if site < self.central else "right"

    def json(self) -> dict[str, Any]:
        """The JSON object, including the members of ``raw`` that this reader does not know."""
        raw = {**self.raw, "gauge": self.gauge, "singular_values": self.singular_values}
        if self.singular_values is None:
            del raw["singular_values"]
        return raw


@dataclass(frozen=True)
class Term:
    """The rows ``rows[0] ≤ i < rows[1]`` and the columns ``columns[0] ≤ j < columns[1]`` of an operator's matrix."""

    operator: str
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]


@dataclass(frozen=True)
class TensorRecord:
    """The record of one tensor of the source.

    Attributes
    ----------
    kind
        ``"mpo"`` (made of operators), ``"dense"`` or ``"tied"``.
    encoding
        the encoding of a dense tensor; None for others.
    matrix_shape
        the matrix shape ``(I, J)`` of a tensor made of operators.
    blocks
        the blocks of a tensor made of operators, stacked along the rows; each is a list of terms, which are added.
    raw
        the JSON object, including members that this reader does not know.
    """

    name: str
    dtype: str
    shape: Shape
    kind: str
    raw: dict[str, Any]
    tied_to: str | None = None
    encoding: Encoding | None = None
    packed: Packed = field(default_factory=dict)
    matrix_shape: tuple[int, int] = (0, 0)
    blocks: tuple[tuple[Term, ...], ...] = ()

    @classmethod
    def parse(cls, raw: dict[str, Any], operators: dict[str, OperatorRecord]) -> TensorRecord:
        name, dtype, kind = _text(raw, "name"), raw["dtype"], raw["kind"]
        if kind not in ("mpo", "dense", "tied"):
            raise Contradiction(f"{name} is of the unknown kind '{kind}': update mpo_checkpoint")
        if dtype not in BITS:
            raise Contradiction(f"{name} has the unknown dtype '{dtype}'")
        shape = _sizes(raw["shape"], 0)
        if shape is None or prod(shape) >= _MAXIMUM_ELEMENTS:
            raise Contradiction(f"{name} has the shape {raw['shape']}, which is not a list of sizes with less than 2^57 elements")
        tensor = cls(name, dtype, shape, kind, raw)
        if kind == "tied":
            if not isinstance(raw.get("tied_to"), str):
                raise Contradiction(f"{name} is tied, but its 'tied_to' is not the name of a tensor")
            return replace(tensor, tied_to=raw["tied_to"])
        if kind == "dense":
            encoding = Encoding.plain(dtype)
            if raw.get("encoding") is not None:
                encoding = Encoding.parse(raw["encoding"], shape, "dense", name)
                is_floating = dtype in FLOATING and (encoding.kind != "plain" or encoding.dtype in FLOATING)
                if encoding != Encoding.plain(dtype) and not is_floating:
                    raise Contradiction(f"{name} is {dtype} with an encoding that only floating-point tensors can have")
            return replace(tensor, encoding=encoding, packed=_packed(raw, encoding.entries(name, shape)))
        if dtype not in FLOATING:
            raise Contradiction(f"{name} is {dtype}; a tensor made of operators must be floating point")
        matrix = _sizes(raw["matrix_shape"], 1)
        if matrix is None or len(matrix) != 2 or prod(matrix) != prod(shape):
            raise Contradiction(
                f"{name} has a matrix {raw['matrix_shape']} of another size than its shape {list(shape)}"
            )
        blocks = tuple(tuple(_term(term, operators, name) for term in block) for block in raw["blocks"])
        if not blocks or not all(blocks):
            raise Contradiction(f"{name} has no block, or a block without terms")
        for block in blocks:
            if len({term.shape for term in block}) > 1:
                raise Contradiction(f"{name} has a block whose terms have different sizes")
            if block[0].shape[1] != matrix[1]:
                raise Contradiction(f"{name} has a block of {block[0].shape[1]} columns; its matrix has {matrix[1]}")
        if (rows := sum(block[0].shape[0] for block in blocks)) != matrix[0]:
            raise Contradiction(f"{name} has blocks of {rows} rows together; its matrix has {matrix[0]}")
        return replace(tensor, matrix_shape=matrix, blocks=blocks)

    @property
    def entries(self) -> dict[str, tuple[str, Shape]]:
        """Dtype and shape, before packing, of its own entries, by name; only a dense tensor has any."""
        return {} if self.encoding is None else self.encoding.entries(self.name, self.shape)

    @property
    def operators(self) -> list[str]:
        """The names of its operators, each once."""
        return list(dict.fromkeys(term.operator for block in self.blocks for term in block))

    @property
    def is_training_state(self) -> bool:
        """Whether it is state of the training (such as an optimizer's) and not part of the model."""
        return bool(self.raw.get("training_state", False))

    def json(self) -> dict[str, Any]:
        return self.raw


def full_bonds(rows: Shape, columns: Shape) -> Shape:
    """The bonds at full rank: the smaller of the products of the sites on either side."""
    sites = [i * j for i, j in zip(rows, columns)]
    return tuple(min(prod(sites[:k]), prod(sites[k:])) for k in range(1, len(sites)))


def central_index(rows: Shape, columns: Shape) -> int:
    """The first core for which the product of the sites up to it is at least the product of the sites after it."""
    sites = [i * j for i, j in zip(rows, columns)]
    return next(k for k in range(len(sites)) if prod(sites[: k + 1]) >= prod(sites[k + 1 :]))


def _term(raw: dict[str, Any], operators: dict[str, OperatorRecord], tensor: str) -> Term:
    operator = operators.get(raw["operator"])
    if operator is None:
        raise Contradiction(f"{tensor} names the operator {raw['operator']}, which is not there")
    ranges = []
    for key, size in zip(("rows", "columns"), operator.matrix_shape):
        limits = [0, size] if raw.get(key) is None else raw[key]
        bounds = _sizes(limits, 0)
        if bounds is None or len(bounds) != 2 or not bounds[0] < bounds[1] <= size:
            raise Contradiction(f"{tensor} has the {key} {limits} of {operator.name}, which has only {size}")
        ranges.append(bounds)
    return Term(operator.name, *ranges)


def _packed(raw: dict[str, Any], entries: dict[str, tuple[str, Shape]]) -> Packed:
    members = raw.get("packed") or []
    if problem := packing_problem(members, entries):
        raise Contradiction(f"{raw['name']} {problem}")
    return {member["name"]: member for member in members}


def _sizes(value: Any, least: int) -> Shape | None:
    """A list of integers as a tuple; None for anything else."""
    is_list = isinstance(value, list) and all(type(size) is int and size >= least for size in value)
    return tuple(value) if is_list else None


def _text(raw: dict[str, Any], key: str) -> str:
    if not isinstance(raw[key], str):
        raise TypeError(f"'{key}' is not a string")
    return raw[key]
