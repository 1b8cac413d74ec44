"""Matrices stand in for their factors with a probability that falls to zero."""

from __future__ import annotations

import pytest
import torch
from mpo_checkpoint import MixedRank, MPOMatrix, from_pretrained
from test_models import assert_same_output, converted


@pytest.fixture
def pair(tiny_bert, tmp_path):
    """A model made of cores, and the folder of the dense one."""
    from transformers import BertModel

    dense = BertModel(tiny_bert).eval()
    dense.save_pretrained(tmp_path / "dense")
    converted(dense, tmp_path / "bert.mpo")  # changes the model
    return from_pretrained(tmp_path / "bert.mpo", "all"), tmp_path / "dense"


def weights(model):
    return [module for module in model.modules() if isinstance(module, MPOMatrix)]


def test_if_all_matrices_stand_in_the_model_is_the_dense_one(pair, token_batch):
    from transformers import BertModel

    model, folder = pair
    with MixedRank(model, folder, 1.0) as mixed:
        assert mixed.draw(0) == len(weights(model)) > 10
        assert_same_output(BertModel.from_pretrained(folder).eval(), model, token_batch)
        model(**token_batch).last_hidden_state.square().sum().backward()
        assert all(core.grad is None for weight in weights(model) for core in weight.cores)
    expected = from_pretrained(model.mpo_source.path, "none")
    assert_same_output(expected, model, token_batch)


def test_the_probability_falls_to_zero(pair):
    model, folder = pair
    mixed = MixedRank(model, folder, 0.8, until=0.5, seed=3)
    assert [mixed.probability(p) for p in (0, 0.25, 0.5, 1)] == [0.8, 0.4, 0, 0]
    count = len(weights(model))
    for progress, chance in ((0, 0.8), (0.25, 0.4)):
        drawn = [mixed.draw(progress) for _ in range(100)]
        assert sum(drawn) / 100 / count == pytest.approx(chance, abs=0.05)
        assert len(set(drawn)) > 1, "each matrix is drawn for itself"
    assert mixed.draw(0.5) == 0 and all(weight.stand_in is None for weight in weights(model))
    again = [MixedRank(model, folder, 0.8, seed=3).draw(0.1) for _ in range(2)]
    assert again[0] == again[1]


def test_matrices_that_do_not_fit_are_refused(pair):
    model, _ = pair
    with pytest.raises(ValueError, match="from 0 to 1"):
        MixedRank(model, {}, 1.5)
    with pytest.raises(ValueError, match="none of the matrices belongs"):
        MixedRank(model, {})
    name = "encoder.layer.0.output.dense.weight"
    with pytest.raises(ValueError, match=r"is \[2, 2\], but its factors are those of a matrix \[64, 96\]"):
        MixedRank(model, {name: torch.zeros(2, 2)})
    assert len(MixedRank(model, {name: torch.zeros(64, 96)}).matrices) == 1
