"""Training on the manifold of the gauge spectral."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mpo_checkpoint import (
    MPOCheckpoint,
    MPOLinear,
    MPOWeight,
    SpectralMPOWeight,
    load_dense,
    load_into,
    parametrized,
    save,
)
from mpo_checkpoint.spectral import Householder
from test_operators import BASE, SHARED, matrices, model
from torch import nn

SHAPES = {
    "two sites": [(1, 12, 1, 5), (5, 1, 9, 1)],
    "two sites, wide": [(1, 9, 1, 5), (5, 1, 12, 1)],
    "deep": [(1, 9, 1, 4), (4, 1, 1, 4), (4, 1, 1, 4), (4, 1, 12, 1)],
    "five sites": [(1, 2, 2, 3), (3, 2, 1, 5), (5, 3, 2, 6), (6, 1, 2, 3), (3, 2, 2, 1)],
}
CENTRAL = {"two sites": 0, "two sites, wide": 1, "deep": 3, "five sites": 2}


def layer(kind, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    cores = [torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES[kind]]
    rows, columns = (int(np.prod([shape[k] for shape in SHAPES[kind]])) for k in (1, 2))
    return MPOLinear(MPOWeight(cores, (rows, columns), CENTRAL[kind]), torch.zeros(rows, dtype=dtype))


def step(net, optimizer, count):
    data = torch.Generator().manual_seed(2)
    x = torch.randn(16, net.in_features, generator=data).to(net.bias.dtype)
    target = torch.randn(16, net.out_features, generator=data).to(net.bias.dtype)
    for _ in range(count):
        optimizer.zero_grad()
        loss = (net(x) - target).square().mean()
        loss.backward()
        optimizer.step()
    return loss.item()


def defect(weight):
    """How far any core is from an isometry."""
    worst = 0.0
    for isometry in weight.isometries:
        core = isometry().detach().double()
        matrix = core.reshape(len(core), -1).T if isometry.is_right else core.reshape(-1, core.shape[3])
        worst = max(worst, (matrix.T @ matrix - torch.eye(matrix.shape[1])).abs().max().item())
    return worst


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_hundred_steps_stay_on_the_manifold(kind, optimizer):
    net = layer(kind)
    before = net.weight.matrix().detach().clone()
    assert net.parametrized() is net and isinstance(net.weight, SpectralMPOWeight)
    torch.testing.assert_close(net.weight.matrix().detach(), before, atol=1e-4, rtol=1e-5)
    made = getattr(torch.optim, optimizer)(net.parameters(), lr=0.01, weight_decay=0.1)
    first = step(net, made, 1)
    last = step(net, made, 99)
    assert last < 0.95 * first
    assert defect(net.weight) <= 1e-6
    if kind != "five sites":
        sigma = net.weight.singular_values.detach().double()
        found = torch.linalg.svdvals(net.weight.matrix().detach().double())[: len(sigma)]
        torch.testing.assert_close(sigma.abs().sort(descending=True).values, found, atol=1e-5, rtol=0)


def test_a_bound_holds_for_the_spectral_norm():
    net = layer("two sites")
    largest = torch.linalg.svdvals(net.weight.matrix()).max().item()
    net.parametrized(bound=largest / 2)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.3)
    assert torch.linalg.svdvals(net.weight.matrix()).max() <= largest / 2 + 1e-4
    step(net, optimizer, 100)
    assert torch.linalg.svdvals(net.weight.matrix()).max() <= largest / 2 + 1e-4
    assert (net.weight.singular_values > 0).all()


@pytest.mark.parametrize("bound", [None, 30.0])
def test_gradients_are_those_of_differences(bound):
    net = layer("five sites", torch.float64).parametrized(bound)
    names, values = zip(*((name, p.detach().clone()) for name, p in net.named_parameters()))
    x = torch.randn(2, net.in_features, dtype=torch.float64)

    def output(*parameters):
        return torch.func.functional_call(net, dict(zip(names, parameters)), (x,))

    assert torch.autograd.gradcheck(output, tuple(value.requires_grad_() for value in values))


def test_a_model_is_trained_saved_as_spectral_and_loaded_again(tmp_path):
    net = model()
    load_into(net, BASE, "all")
    with pytest.raises(ValueError, match="shares cores"):
        parametrized(net)
    own = nn.ModuleDict({name: layer for name, layer in net.items() if f"{name}.weight" not in SHARED})
    before = matrices(own)
    parametrized(own)
    assert net["q"].weight.parts[0] is net["k"].weight.parts[0] and net["tied"].weight is net["chain"].weight
    for name, matrix in matrices(own).items():
        np.testing.assert_allclose(matrix, before[name], atol=1e-5)
    optimizer = torch.optim.SGD(own.parameters(), 0.01)
    sum(layer(torch.ones(1, layer.in_features)).square().sum() for layer in own.values()).backward()
    optimizer.step()
    save(net, tmp_path / "y.mpo")
    checkpoint = MPOCheckpoint(tmp_path / "y.mpo")
    gauges = {name: checkpoint.operators[checkpoint.tensors[f"{name}.weight"].operators[0]].gauge for name in own if name != "tied"}
    assert set(gauges.values()) == {"spectral"}
    expected = matrices(own)
    for name, array in load_dense(tmp_path / "y.mpo").items():
        if name in expected and name != "int8.weight":
            np.testing.assert_allclose(array, expected[name], atol=1e-4)
    assert {tensor.name for tensor in checkpoint} == {tensor.name for tensor in MPOCheckpoint(BASE)}


def test_state_and_copies_carry_the_manifold():
    net = layer("two sites").parametrized()
    step(net, torch.optim.SGD(net.parameters(), 0.05), 5)
    other = layer("two sites").parametrized()
    other.load_state_dict(net.state_dict())
    clone = copy.deepcopy(net)
    for again in (other, clone):
        torch.testing.assert_close(again.weight.matrix(), net.weight.matrix(), atol=0, rtol=0)


@pytest.mark.parametrize("shape", [(7, 3), (5, 5), (6, 1)])
def test_the_map_is_torchs(shape):
    from torch.nn.utils.parametrizations import orthogonal

    frame = torch.linalg.qr(torch.randn(shape, dtype=torch.float64))[0]
    frame[:, 0] *= -1
    theirs = nn.Linear(shape[1], shape[0], bias=False, dtype=torch.float64)
    orthogonal(theirs, "weight", "householder", use_trivialization=False)
    theirs.weight = frame
    ours = Householder(shape[1]).to(frame)
    vectors = ours.right_inverse(frame)
    torch.testing.assert_close(ours(vectors), frame)
    moved = vectors + torch.randn(shape, dtype=torch.float64).tril(-1)
    with torch.no_grad():
        theirs.parametrizations.weight.original.copy_(_signed(moved, ours.signs))
    torch.testing.assert_close(ours(moved), theirs.weight)
    identity = torch.eye(*shape, dtype=torch.float64)
    torch.testing.assert_close(ours(ours.right_inverse(identity)), identity)


def _signed(vectors, signs):
    """The parameters of torch's map: the signs on the diagonal."""
    result = vectors.tril(-1)
    result.diagonal().copy_(signs)
    return result


@pytest.mark.parametrize("bound", [0, -1.0, float("nan")])
def test_bounds_that_are_not_positive_are_refused(bound):
    with pytest.raises(ValueError, match="bound is"):
        layer("two sites").parametrized(bound)
