"""Layers made of cores compute what dense layers compute."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from reference import central_index, compacted, decompose
from torch import nn
from torch.nn import functional

from mpo_checkpoint import (
    CompactMPOWeight,
    MPOBlockWeight,
    MPOConv1D,
    MPOEmbedding,
    MPOLinear,
    MPOMatrix,
    MPOWeight,
    contraction,
    mpo_matrix,
)
from mpo_checkpoint.records import Term
from mpo_checkpoint.side_basis import Constant, SideBasis

SHAPES = {
    "low rank": ((12, 1), (1, 10), 3),
    "three sites": ((2, 3, 2), (5, 1, 2), 4),
    "five sites": ((3, 1, 2, 1, 2), (1, 5, 2, 1, 1), 6),
    "padded": ((4, 2, 2), (2, 3, 2), 5),
    "bond one": ((4, 3), (5, 2), 1),
}


def chain_weight(shape, dtype=torch.float64, size=(12, 10), **options):
    rows, columns, bond = SHAPES[shape]
    cores = decompose(torch.randn(size).numpy(), rows, columns, bond)
    return MPOWeight(
        [torch.from_numpy(core).to(dtype) for core in cores], size, central_index(rows, columns), **options
    )


def side_basis(size, kind, has_scale):
    basis = torch.linalg.qr(torch.randn(size, size).double())[0]
    return SideBasis(
        Constant(basis) if kind == "basis" else None,
        Constant(torch.randperm(size)) if kind == "permutation" else None,
        Constant(torch.rand(size).double() + 0.5) if has_scale else None,
    )


def compact_weight(rows, columns, bond, **options):
    cores, central = decompose(torch.randn(rows, columns).numpy(), (rows, 1), (1, columns), bond), int(columns > rows)
    cores, pivots = compacted(cores, central)
    places = torch.from_numpy(pivots[1 - central])
    outer = torch.from_numpy(cores[1 - central])
    outer = outer[0, :, 0] if central else outer[:, 0, :, 0].T
    values = outer[[k for k in range(len(outer)) if k not in places]]
    return CompactMPOWeight(
        values if central else values.T.contiguous(), places, torch.from_numpy(cores[central]), central, **options
    )


def block_weight():
    """Rows of one operator, a sum of ranges of two, and the one operator again: 5 + 4 + 3 rows of 10 columns."""
    operators = {"a": chain_weight("three sites"), "b": compact_weight(6, 13, 2)}
    blocks = [
        [Term("a", (7, 12), (0, 10))],
        [Term("b", (1, 5), (3, 13)), Term("a", (0, 4), (0, 10))],
        [Term("b", (3, 6), (0, 10))],
    ]
    return MPOBlockWeight(operators, blocks)


WEIGHTS = {
    **{shape: (lambda shape=shape: chain_weight(shape)) for shape in SHAPES},
    "compact, rows": lambda: CompactMPOWeight(*_transposed_compact()),
    "compact, columns": lambda: compact_weight(12, 10, 3),
    "compact, bond one": lambda: compact_weight(12, 10, 1),
    "bases": lambda: chain_weight(
        "three sites", row_basis=side_basis(12, "basis", True), column_basis=side_basis(10, "basis", False)
    ),
    "permutations": lambda: chain_weight(
        "padded", row_basis=side_basis(12, "permutation", True), column_basis=side_basis(10, "permutation", True)
    ),
    "compact with bases": lambda: compact_weight(
        12, 10, 4, row_basis=side_basis(12, "permutation", False), column_basis=side_basis(10, "basis", True)
    ),
    "blocks": block_weight,
}


def _transposed_compact():
    """A compact matrix 12 × 10 whose pivots are rows."""
    cores, pivots = compacted(decompose(torch.randn(12, 10).numpy(), (12, 1), (1, 10), 3), 1)
    outer = torch.from_numpy(cores[0])[0, :, 0]
    values = outer[[k for k in range(12) if k not in pivots[0]]]
    return values, torch.from_numpy(pivots[0]), torch.from_numpy(cores[1]), 1


def weight(shape="three sites", dtype=torch.float64, **options):
    return chain_weight(shape, dtype, **options) if shape in SHAPES else WEIGHTS[shape]().to(dtype)


def dense(weight):
    """The matrix, computed as FORMAT.md says."""
    if isinstance(weight, MPOBlockWeight):
        parts = [dense(part) for part in weight.parts]
        return torch.cat(
            [sum(parts[k][slice(*t.rows), slice(*t.columns)] for k, t in block) for block in weight.blocks]
        )
    matrix = contraction.matrix(weight.whole_cores())[: weight.shape[0], : weight.shape[1]]
    for basis in (weight.row_basis, weight.column_basis):
        if basis is not None:
            matrix = matrix if basis.scale is None else basis.scale.value[:, None] * matrix
            matrix = matrix if basis.basis is None else basis.basis.value @ matrix
            matrix = matrix if basis.permutation is None else matrix[basis.permutation.value]
        matrix = matrix.T
    return matrix


@pytest.mark.parametrize("way", ["product", "factors", "matrix"])
@pytest.mark.parametrize("shape", WEIGHTS)
class TestAllWays:
    """Forces one way of computing a product, which otherwise the costs choose."""

    @pytest.fixture(autouse=True)
    def _forced(self, monkeypatch, way, shape):
        if way == "factors" and weight(shape).factor_rank() is None:
            pytest.skip("has no two factors")
        monkeypatch.setattr(MPOMatrix, "_route", lambda *_: way)
        monkeypatch.setattr(contraction, "matrix_cost", lambda _: 0 if way == "matrix" else 10**9)
        monkeypatch.setattr(MPOWeight, "_basis_cost", lambda *_: 0)

    def test_linear(self, shape):
        layer = MPOLinear(weight(shape), torch.randn(12, dtype=torch.float64))
        for x in (torch.randn(10), torch.randn(3, 10), torch.randn(2, 3, 10), torch.randn(0, 10)):
            x = x.double()
            torch.testing.assert_close(layer(x), functional.linear(x, dense(layer.weight), layer.bias))

    def test_conv1d(self, shape):
        layer = MPOConv1D(weight(shape), torch.randn(10, dtype=torch.float64))
        for x in (torch.randn(12), torch.randn(3, 12), torch.randn(2, 3, 12)):
            torch.testing.assert_close(layer(x.double()), x.double() @ dense(layer.weight) + layer.bias)

    def test_embedding(self, shape):
        layer = MPOEmbedding(weight(shape))
        for ids in (torch.tensor(3), torch.tensor([[0, 11, 5], [5, 5, 2]]), torch.arange(0)):
            torch.testing.assert_close(layer(ids), functional.embedding(ids, dense(layer.weight)))

    def test_gradients(self, shape):
        linear, conv1d, embedding = MPOLinear(weight(shape)), MPOConv1D(weight(shape)), MPOEmbedding(weight(shape))

        def call(layer):
            names = [name for name, _ in layer.named_parameters()]
            return lambda x, *cores: torch.func.functional_call(layer, dict(zip(names, cores)), x)

        def cores(layer):
            return [core.detach().requires_grad_() for core in layer.parameters()]

        for layer, features in ((linear, 10), (conv1d, 12)):
            x = torch.randn(2, features, dtype=torch.float64, requires_grad=True)
            assert torch.autograd.gradcheck(call(layer), (x, *cores(layer)))
        ids = torch.tensor([0, 7, 7, 11])
        assert torch.autograd.gradcheck(lambda *c: call(embedding)(ids, *c), cores(embedding))


@pytest.mark.parametrize("shape", WEIGHTS)
def test_gradients_are_those_of_the_dense_layer(shape):
    """The gradients of the cores, by the chain rule through the matrix."""
    layer, x, y = MPOLinear(weight(shape)), torch.randn(4, 10).double(), torch.randn(4, 12).double()
    ((layer(x) - y) ** 2).sum().backward()
    matrix = layer.weight.matrix().detach().requires_grad_()
    ((functional.linear(x, matrix) - y) ** 2).sum().backward()
    expected = torch.autograd.grad(layer.weight.matrix(), list(layer.weight.parameters()), matrix.grad)
    for core, gradient in zip(layer.weight.parameters(), expected):
        torch.testing.assert_close(core.grad, gradient)


def test_costs_count_multiplications():
    low_rank = [(1, 12, 1, 3), (3, 1, 10, 1)]
    assert contraction.matrix_cost(low_rank) == 12 * 3 + 12 * 10 * 3
    assert contraction.apply_cost(low_rank) == 3 * 10 + 12 * 3
    assert contraction.rows_cost(low_rank) == 3 + 3 * 10


def test_the_cheaper_way_depends_on_the_batch(monkeypatch):
    monkeypatch.setattr(mpo_matrix, "CHAIN_OVERHEAD", 1)
    layer = MPOLinear(weight("five sites"))
    assert layer.weight._may_keep is False  # its cores are trained
    built = []
    monkeypatch.setattr(MPOWeight, "matrix", lambda self: built.append(1) or self.built())
    layer(torch.randn(1, 10).double())
    assert not built
    layer(torch.randn(10_000, 10).double())
    assert built
    built.clear()
    MPOLinear(weight("bond one"))(torch.randn(10_000, 10).double())
    assert not built, "bond one is cheaper through the cores for any batch"


def test_the_matrix_is_kept_when_nothing_is_trained():
    kept = weight()
    with torch.no_grad():
        assert kept.train().matrix() is not kept.matrix(), "in training mode the cores may change"
        assert kept.eval().matrix() is kept.matrix()
    assert kept.matrix() is not kept.matrix(), "gradients are wanted"
    kept.requires_grad_(False)
    assert kept.train().matrix() is kept.matrix()
    with torch.inference_mode():
        inferred = kept.matrix()
    x = torch.randn(3, 10, dtype=torch.float64, requires_grad=True)
    functional.linear(x, inferred).sum().backward()


def test_a_kept_matrix_follows_its_cores():
    kept = weight().eval().requires_grad_(False)
    before = kept.matrix().clone()
    with torch.no_grad():
        kept.cores[1].mul_(2)
    torch.testing.assert_close(kept.matrix(), 2 * before)
    kept.load_state_dict({name: value * (3 if name == "cores.0" else 1) for name, value in kept.state_dict().items()})
    torch.testing.assert_close(kept.matrix(), 6 * before)
    assert kept.float().matrix().dtype == torch.float32
    assert copy.deepcopy(kept).matrix() is not kept.matrix()
    assert pickle.loads(pickle.dumps(kept))._kept is None


def test_nothing_is_kept_on_request():
    layer = weight(keeps_matrix=False).eval().requires_grad_(False)
    assert layer.matrix() is not layer.matrix()


def test_state_dict_keys_are_the_names_of_the_format():
    model = nn.ModuleDict({"dense": MPOLinear(weight(), torch.zeros(12))})
    assert list(model.state_dict()) == ["dense.bias", *(f"dense.weight.cores.{k}" for k in range(3))]


def test_a_weight_has_the_attributes_of_a_tensor_that_models_use():
    layer = MPOLinear(weight(dtype=torch.float32))
    assert (layer.weight.shape, layer.weight.dtype, layer.weight.device.type) == ((12, 10), torch.float32, "cpu")


@pytest.mark.parametrize("ids", [[12], [-1]])
def test_rows_outside_the_table_are_refused(ids):
    with pytest.raises(IndexError):
        MPOEmbedding(weight("padded"))(torch.tensor(ids))


def test_training_cores_lowers_a_loss():
    layer = MPOLinear(weight("five sites", torch.float32), torch.zeros(12))
    layer.weight.central_core.requires_grad_(False)
    central = layer.weight.central_core.clone()
    x, y = torch.randn(64, 10), torch.randn(64, 12)
    optimizer = torch.optim.Adam([p for p in layer.parameters() if p.requires_grad], 0.02)
    losses = []
    for _ in range(50):
        loss = (layer(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert torch.equal(central, layer.weight.central_core)


@pytest.mark.parametrize(("rows", "columns"), [(12, 10), (10, 12)])
def test_a_compact_product_takes_a_multiplication_for_each_number_stored(rows, columns):
    bond = 4
    held = compact_weight(rows, columns, bond)
    assert held.product_cost(False) == held.product_cost(True) == bond * (rows + columns - bond)
    assert sum(p.numel() for p in held.parameters()) == bond * (rows + columns - bond)
    assert held.shape == (rows, columns) and [tuple(c.shape) for c in held.whole_cores()] == held._shapes()
    assert all(held._route(batch, False) == "product" for batch in (1, 10**6))
    with torch.no_grad():
        assert held.eval()._route(1, False) == "factors", "whole, they are kept where no gradient is wanted"


@pytest.mark.parametrize("shape", ["low rank", "compact, columns", "compact, rows", "padded", "bases"])
@pytest.mark.parametrize("rows", [(0, 12), (0, 5), (3, 9), (11, 12)])
def test_a_range_of_rows(shape, rows):
    held, (first, last) = weight(shape), rows
    x, y = torch.randn(4, 10).double(), torch.randn(4, last - first).double()
    torch.testing.assert_close(held.product(x, False, rows), x @ dense(held)[first:last].T)
    torch.testing.assert_close(held.product(y, True, rows), y @ dense(held)[first:last])
    is_outer = shape in ("low rank", "compact, columns")
    for transposed in (False, True):
        assert (held.product_cost(transposed, rows) < held.product_cost(transposed)) == (is_outer and rows != (0, 12))


def test_bases_are_not_parameters_and_move_with_the_model():
    held = WEIGHTS["bases"]()
    assert len(list(held.parameters())) == 3 and list(held.state_dict()) == [f"cores.{k}" for k in range(3)]
    assert held.float().row_basis.basis.value.dtype == torch.float32


def test_a_parameter_in_two_weights_gets_both_gradients():
    first = weight("three sites")
    second = MPOWeight(
        [torch.randn_like(first.cores[0]), first.cores[1], torch.randn_like(first.cores[2])], (12, 10), first.central
    )
    assert second.cores[1] is first.cores[1]
    x = torch.randn(3, 10).double()
    apart = [torch.autograd.grad(w(x).square().sum(), w.cores[1])[0] for w in (first, second)]
    (first(x).square().sum() + second(x).square().sum()).backward()
    torch.testing.assert_close(first.cores[1].grad, sum(apart))
