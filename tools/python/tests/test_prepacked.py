"""Layers in bfloat16 multiply with matrices in the layout of the processor, with the same results."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from mpo_checkpoint import CompactMPOWeight, MPOConv1D, MPOLinear, MPOMatrix, MPOWeight, mpo_matrix, prepacked

pytestmark = pytest.mark.skipif(
    not prepacked.is_usable(torch.zeros(1, dtype=torch.bfloat16)), reason="no bfloat16 in oneDNN on this processor"
)


@pytest.fixture(autouse=True)
def always_with_factors(monkeypatch):
    monkeypatch.setattr(mpo_matrix, "_HALF_WORK", 0)


def low_rank(rows: int = 48, columns: int = 40, rank: int = 7) -> MPOWeight:
    up, down = torch.randn(1, rows, 1, rank), torch.randn(rank, 1, columns, 1)
    return MPOWeight([up.bfloat16(), down.bfloat16()], (rows, columns), 1)


def compact(rows: int = 48, columns: int = 40, rank: int = 7) -> CompactMPOWeight:
    values, central = torch.rand(rows - rank, rank) - 0.5, torch.randn(rank, 1, columns, 1)
    return CompactMPOWeight(values.bfloat16(), torch.randperm(rows)[:rank].sort().values, central.bfloat16(), 1)


def chain() -> MPOWeight:
    shapes = [(1, 4, 5, 6), (6, 4, 4, 5), (5, 3, 2, 1)]
    return MPOWeight([torch.randn(*shape).bfloat16() for shape in shapes], (48, 40), 1)


def kept_names(weight: MPOMatrix) -> set[str]:
    return set() if weight._kept is None else {name for name in weight._kept[1] if isinstance(name, str)}


@pytest.mark.parametrize("make", [low_rank, compact, chain])
@pytest.mark.parametrize("layer", [MPOLinear, MPOConv1D])
def test_the_results_are_those_of_torch(make, layer):
    weight = make()
    dense = weight.built().float()
    dense = dense if layer is MPOLinear else dense.T
    module = layer(weight, torch.randn(dense.shape[0]).bfloat16()).eval()
    for batch in [(3,), (2, 5), (1, 64, 3), (0, 4), (3,)]:
        x = torch.randn(*batch, dense.shape[1]).bfloat16()
        expected = functional.linear(x.float(), dense, module.bias.float())
        for _ in range(2):  # the second time as it was remembered
            with torch.inference_mode():
                found = module(x)
            assert found.dtype is torch.bfloat16 and found.shape == expected.shape
            assert (found.float() - expected).norm() <= 0.01 * expected.norm()
    names = kept_names(weight)
    assert len(names) == 1 and "prepacked" in names.pop()  # and not the plain matrices beside them


def test_a_changed_core_counts():
    module = MPOLinear(low_rank()).eval()
    x = torch.randn(4, 40).bfloat16()
    with torch.no_grad():
        before = module(x)
        module.weight.cores[0].mul_(2)
        torch.testing.assert_close(module(x), 2 * before)


def test_gradients_go_through_frozen_layers():
    module = MPOLinear(low_rank()).eval().requires_grad_(False)
    x = torch.randn(4, 40).bfloat16()
    with torch.no_grad():
        module(x)
    assert "prepacked" in "".join(kept_names(module.weight))
    x.requires_grad_()
    module(x).sum().backward()
    torch.testing.assert_close(x.grad, module.weight.built().sum(0).expand_as(x), rtol=0.03, atol=0.1)


def test_transforms_autocast_and_copies_do_not_use_it():
    module = MPOLinear(low_rank()).eval()
    x, v = torch.randn(4, 40).bfloat16(), torch.randn(4, 40).bfloat16()
    with torch.no_grad():
        found = module(x)
        _, tangent = torch.func.jvp(module, (x,), (v,))
        torch.testing.assert_close(tangent, module(v))
        torch.testing.assert_close(torch.func.vmap(module)(x), found)
        torch.testing.assert_close(copy.deepcopy(module)(x), found)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(module(x.float()), found)
    with torch.autograd.forward_ad.dual_level(), torch.no_grad():
        dual = torch.autograd.forward_ad.make_dual(x, v)
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(module(dual)).tangent, module(v))


def test_single_precision_and_layers_that_keep_nothing_use_torch():
    single = MPOLinear(low_rank().float()).eval()
    nothing = MPOLinear(low_rank()).eval()
    nothing.weight.keeps_matrix = False
    with torch.inference_mode():
        single(torch.randn(4, 40))
        nothing(torch.randn(4, 40).bfloat16())
    assert kept_names(single.weight) == {"factors"} and kept_names(nothing.weight) == set()
