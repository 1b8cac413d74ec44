"""Second moments of inputs and output gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mpo_checkpoint import collect_statistics
from mpo_checkpoint.moments import COHERENCE
from torch import nn


def run(model, batches, forward=lambda model, batch: model(batch), **options):
    options = {"min_side": 1, "mask": lambda batch: None} | options
    return collect_statistics(model, batches, forward, **options)


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.second = nn.Linear(3, 5)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def moments(x, g, samples):
    """S and G of the definition, for positions ``x [n, J]`` and gradients ``g [n, I]`` of one pass."""
    x, g = x.detach().double(), g.detach().double()
    feels, sizes = g.square().sum(-1), x.square().sum(-1)
    s = torch.einsum("n,ni,nj->ij", feels, x, x) / feels.sum()
    g = torch.einsum("n,ni,nj->ij", sizes, g, g)
    return s, g / g.trace() * feels.sum() / samples


def test_moments_are_those_of_the_definition():
    model, x, target = TwoLayers(), torch.randn(12, 4), torch.randn(12, 5)
    statistics = run(
        model, zip(x.split(5), target.split(5)), lambda model, batch: model(batch[0]),
        loss=lambda output, batch: (output - batch[1]).square().sum(-1),
    )  # fmt: skip
    assert (statistics.samples, statistics.tokens) == (12, 12)

    first = model.first(x).detach().requires_grad_()
    hidden = torch.tanh(first)
    output = model.second(hidden)
    gradients = torch.autograd.grad((output - target).square().sum(), [first, output])
    for name, inputs, gradient in (("first", x, gradients[0]), ("second", hidden, gradients[1])):
        s, g = moments(inputs, gradient, samples=12)
        np.testing.assert_allclose(statistics.tensors[f"{name}.weight.column_gram"], s, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(statistics.tensors[f"{name}.weight.row_gram"], g, rtol=1e-5, atol=1e-6)


def test_positions_of_a_sample_add_up_in_part():
    """S and G of the definition, from the positions of each sample pair by pair."""
    layer, x, r = nn.Linear(4, 3, bias=False), torch.randn(2, 5, 4), torch.randn(2, 5, 3)
    statistics = run(layer, [x], loss=lambda output, _: (output * r).sum((1, 2)))
    s, g = torch.zeros(4, 4), torch.zeros(3, 3)
    for sample in range(2):
        for i in range(5):
            for j in range(5):
                share = 1 if i == j else COHERENCE
                s += share * (r[sample, i] @ r[sample, j]) * torch.outer(x[sample, i], x[sample, j])
                g += share * (x[sample, i] @ x[sample, j]) * torch.outer(r[sample, i], r[sample, j])
    assert s.trace().item() == pytest.approx(g.trace().item(), rel=1e-5)
    total = r.square().sum()
    np.testing.assert_allclose(statistics.tensors["weight.column_gram"], s / total, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics.tensors["weight.row_gram"], g / s.trace() * total / 2, rtol=1e-4, atol=1e-5)


def test_positions_the_output_does_not_depend_on_do_not_count():
    model, x = TwoLayers(), torch.randn(3, 6, 4)
    first_only = run(model, [x], lambda model, batch: model(batch)[:, 0], seed=1)
    alone = run(model, [x[:, :1]], lambda model, batch: model(batch)[:, 0], seed=1)
    for name, value in alone.tensors.items():
        np.testing.assert_allclose(first_only.tensors[name], value, rtol=1e-4, atol=1e-6)


def test_random_projections_estimate_the_squared_jacobian():
    model, x = TwoLayers(), torch.randn(1, 4)
    statistics = run(model, [x], projections=4000)
    hidden = model.first(x)[0].detach()
    jacobian = torch.autograd.functional.jacobian(lambda h: model.second(torch.tanh(h)), hidden)
    expected = (jacobian.T @ jacobian).numpy()
    np.testing.assert_allclose(
        statistics.tensors["first.weight.row_gram"], expected, atol=0.08 * np.abs(expected).max()
    )
    np.testing.assert_allclose(statistics.tensors["first.weight.column_gram"], x.T @ x, rtol=1e-4, atol=1e-6)


def test_the_metric_predicts_the_change_of_the_output():
    """For one position per sample, tr(G D S Dᵀ) is the mean squared change, where it factors: at the last layer."""
    model, x = TwoLayers(), torch.randn(50, 4)
    statistics = run(model, [x], projections=400)
    change = 0.01 * torch.randn(5, 3)
    hidden = torch.tanh(model.first(x))
    actual = float((hidden.detach() @ change.T).square().sum(-1).mean())
    g, s = (torch.from_numpy(statistics.tensors[f"second.weight.{kind}_gram"]) for kind in ("row", "column"))
    predicted = float(torch.trace(g @ change.double() @ s @ change.T.double()))
    assert predicted == pytest.approx(actual, rel=0.1)


def test_padding_does_not_count(tiny_bert, token_batch):
    """With a loss, which has no randomness, padded and separate samples have the same statistics."""
    from transformers import BertModel

    model = BertModel(tiny_bert).eval()

    def hidden(model, batch):
        return model(**batch).last_hidden_state * batch["attention_mask"][..., None]

    def loss(output, batch):
        return output[..., :7].sum((1, 2))

    def mask(batch):
        return batch["attention_mask"]

    padded = run(model, [token_batch], hidden, mask=mask, loss=loss, min_side=64)
    alone = [
        {"input_ids": ids[None, :n], "attention_mask": torch.ones(1, n, dtype=torch.long)}
        for ids, n in zip(token_batch["input_ids"], token_batch["attention_mask"].sum(1).tolist())
    ]
    separate = run(model, alone, hidden, mask=mask, loss=loss, min_side=64)
    assert padded.tokens == separate.tokens == 15
    assert padded.tensors.keys() == separate.tensors.keys()
    for name, value in separate.tensors.items():
        if "position" not in name:  # looked up once for a whole batch
            scale = np.abs(value).max()
            np.testing.assert_allclose(padded.tensors[name], value, rtol=1e-3, atol=1e-4 * scale, err_msg=name)


def test_rows_of_an_embedding_are_weighted_by_frequency():
    model = nn.Sequential(nn.Embedding(6, 3), nn.Linear(3, 2))
    statistics = run(
        model, [torch.tensor([[1, 1, 2], [1, 5, 5]])], loss=lambda output, _: output.sum((1, 2))
    )  # every position has the same gradient
    counts = np.array([0, 3, 1, 0, 0, 2]) + 1
    np.testing.assert_allclose(statistics.tensors["0.weight.row_scale"] ** 2, counts / counts.sum(), 1e-5)
    assert statistics.tensors["0.weight.column_gram"].shape == (3, 3)
    assert "0.weight.row_gram" not in statistics.tensors


def test_conv1d_has_its_inputs_on_the_rows():
    from transformers.pytorch_utils import Conv1D

    layer, x = Conv1D(5, 3), torch.randn(8, 3)  # 3 inputs, 5 outputs, weight [3, 5]
    statistics = run(nn.Sequential(layer), [x], loss=lambda output, _: output.sum(-1))
    assert statistics.input_rows == ["0.weight"] and statistics.inputs("0.weight") == "row"
    s, g = moments(x, torch.ones(8, 5), samples=8)
    np.testing.assert_allclose(statistics.tensors["0.weight.row_gram"], s, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(statistics.tensors["0.weight.column_gram"], g, rtol=1e-5, atol=1e-6)


def test_large_sides_keep_the_diagonal():
    model, x = TwoLayers(), torch.randn(12, 4)
    full, diagonal = run(model, [x]), run(model, [x], max_gram=3)
    np.testing.assert_allclose(
        diagonal.tensors["first.weight.column_scale"] ** 2, full.tensors["first.weight.column_gram"].diagonal(), 1e-5
    )
    assert "second.weight.column_gram" in diagonal.tensors  # of 3 inputs
    assert diagonal.tensors["second.weight.row_scale"].shape == (5,)


def test_a_tied_weight_has_the_statistics_of_all_its_uses():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(6, 3)
            self.head = nn.Linear(3, 6, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids):
            return self.head(torch.tanh(self.table(ids)))

    statistics = run(Tied(), [torch.tensor([[1, 2, 3]])])
    assert statistics.matrices == ["table.weight"]
    assert statistics.tensors["table.weight.row_gram"].shape == (6, 6)
    renamed = run(Tied(), [torch.tensor([[1, 2]])], names={"head.weight": "lm.weight"}.get)
    assert renamed.matrices == ["lm.weight"]


def test_shared_layers_count_every_call(token_batch):
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(
        vocab_size=100, embedding_size=64, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=96, max_position_embeddings=64,
    )  # fmt: skip
    statistics = collect_statistics(
        AlbertModel(config), [token_batch], lambda model, batch: model(**batch).last_hidden_state
    )
    assert sum("albert_layers" in name for name in statistics.matrices) == 6


def test_grouped_query_attention(token_batch):
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=1,
        intermediate_size=96,
    )  # fmt: skip
    statistics = run(
        LlamaModel(config), [token_batch], lambda model, batch: model(**batch).last_hidden_state,
        mask=lambda batch: batch["attention_mask"],
    )  # fmt: skip
    assert statistics.tensors["layers.0.self_attn.k_proj.weight.row_gram"].shape == (16, 16)
    assert statistics.tensors["layers.0.self_attn.k_proj.weight.column_gram"].shape == (64, 64)


def test_gpt2_with_its_head(tiny_gpt2, token_batch):
    from transformers import GPT2LMHeadModel

    statistics = run(
        GPT2LMHeadModel(tiny_gpt2), [token_batch], lambda model, batch: model(**batch).logits,
        mask=lambda batch: batch["attention_mask"], min_side=64,
    )  # fmt: skip
    assert statistics.tensors["transformer.h.0.mlp.c_fc.weight.row_gram"].shape == (64, 64)
    assert statistics.tensors["transformer.h.0.mlp.c_fc.weight.column_gram"].shape == (256, 256)
    assert "transformer.wte.weight" in statistics.matrices
    assert not statistics.skipped
    # All layers but the embeddings are Conv1D, and of these too the rows are read.
    assert sorted(statistics.input_rows) == statistics.matrices


def test_the_inputs_of_linear_layers_are_columns(tiny_bert, token_batch):
    from transformers import BertModel

    statistics = run(
        BertModel(tiny_bert), [token_batch], lambda model, batch: model(**batch).last_hidden_state,
        mask=lambda batch: batch["attention_mask"], min_side=64,
    )  # fmt: skip
    assert all("embeddings" in name for name in statistics.input_rows)
    assert any("attention" in name for name in statistics.matrices)


def test_conv1d_predicts_the_change_of_its_output():
    """tr(D S Dᵀ G) with the rows' and the columns' moments in their places."""
    from transformers.pytorch_utils import Conv1D

    layer, x = Conv1D(5, 3), torch.randn(50, 3)
    statistics = run(nn.Sequential(layer), [x], projections=400)
    change = 0.01 * torch.randn(3, 5)
    rows, columns = (torch.from_numpy(statistics.tensors[f"0.weight.{side}_gram"]) for side in ("row", "column"))
    predicted = float(torch.trace(rows @ change.double() @ columns @ change.double().T))
    assert predicted == pytest.approx(float((x @ change).square().sum(-1).mean()), rel=0.1)


def test_the_model_is_not_changed():
    model = TwoLayers().train()
    model.first.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, [torch.randn(3, 4)])
    assert model.training and model.second.training
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.first._forward_hooks


def test_layers_the_output_does_not_depend_on_are_left_out_and_named():
    class Aside(TwoLayers):
        def __init__(self):
            super().__init__()
            self.aside = nn.Linear(4, 2)
            self.never = nn.Linear(4, 2)

        def forward(self, x):
            self.aside(x)
            return super().forward(x)

    statistics = run(Aside(), [torch.randn(3, 4)])
    assert statistics.matrices == ["first.weight", "second.weight"]
    assert statistics.skipped == ["aside.weight", "never.weight"]


def test_globs_select_matrices():
    x = torch.randn(3, 4)
    assert run(TwoLayers(), [x], include=["sec*"]).matrices == ["second.weight"]
    assert run(TwoLayers(), [x], exclude=["sec*"]).matrices == ["first.weight"]
    assert run(TwoLayers(), [x], min_side=3).matrices == ["first.weight", "second.weight"]
    with pytest.raises(ValueError, match="no matrix"):
        run(TwoLayers(), [x], min_side=4)


def test_the_seed_decides_the_projections():
    model, x = TwoLayers(), torch.randn(3, 4)
    first, again, other = (run(model, [x], seed=seed) for seed in (1, 1, 2))
    name = "first.weight.row_gram"
    np.testing.assert_array_equal(first.tensors[name], again.tensors[name])
    assert not np.array_equal(first.tensors[name], other.tensors[name])


def test_element_weights_are_the_mean_squared_gradients_of_samples():
    model, x, r = TwoLayers(), torch.randn(5, 6, 4), torch.randn(5, 6, 5)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 6, [1] * 2 + [0] * 4, [1] * 6])
    loss = lambda output, batch: (output * batch[1] * batch[2][..., None]).sum((1, 2))  # noqa: E731
    statistics = run(
        model, zip(x.split(2), r.split(2), mask.split(2)), lambda model, batch: model(batch[0]),
        mask=lambda batch: batch[2], loss=loss, has_element_weights=True,
    )  # fmt: skip
    expected = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters() if parameter.ndim == 2}
    for sample in range(5):
        batch = x[sample : sample + 1], r[sample : sample + 1], mask[sample : sample + 1]
        gradients = torch.autograd.grad(loss(model(batch[0]), batch).sum(), [model.first.weight, model.second.weight])
        for name, gradient in zip(expected, gradients):
            expected[name] += gradient.square() / 5
    assert statistics.tensors.keys() == {f"{name}.element_weights" for name in expected}
    for name, value in expected.items():
        np.testing.assert_allclose(statistics.tensors[f"{name}.element_weights"], value, rtol=1e-4, atol=1e-7)


def test_element_weights_of_embeddings_count_a_sample_once_for_each_token(tmp_path):
    table, head = nn.Embedding(7, 3), nn.Linear(3, 2, bias=False)
    model = nn.Sequential(table, head)
    ids, r = torch.tensor([[1, 1, 4], [4, 2, 2]]), torch.randn(2, 3, 2)
    loss = lambda output, _: (output * r).sum((1, 2))  # noqa: E731
    statistics = run(model, [ids], loss=loss, has_element_weights=True)
    expected = torch.zeros(7, 3)
    for sample in range(2):
        value = (model(ids[sample]) * r[sample]).sum()
        expected += torch.autograd.grad(value, table.weight)[0].square() / 2
    np.testing.assert_allclose(statistics.tensors["0.weight.element_weights"], expected, rtol=1e-4, atol=1e-7)
    assert statistics.input_rows == ["0.weight"]
    statistics.save(tmp_path / "stats.safetensors")
    assert type(statistics).load(tmp_path / "stats.safetensors").tensors.keys() == statistics.tensors.keys()


def test_element_weights_of_a_language_model_are_of_its_pieces(tmp_path):
    from mpo_checkpoint import Statistics
    from mpo_checkpoint.huggingface import calibrate_language_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=24
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "model")
    pieces, notices = torch.randint(5, 50, (3, 8)), []
    calibrate_language_model(
        tmp_path / "model", pieces, tmp_path / "stats.safetensors", min_side=8, has_element_weights=True, notice=notices.append
    )
    assert any("all of it is loaded" in notice for notice in notices)
    statistics = Statistics.load(tmp_path / "stats.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    expected = torch.zeros(24, 16)
    for piece in pieces:
        logits = model(input_ids=piece[None]).logits[0]
        value = nn.functional.cross_entropy(logits[:-1], piece[1:], reduction="sum")
        expected += torch.autograd.grad(value, model.get_parameter(name))[0].square() / 3
    np.testing.assert_allclose(statistics.tensors[f"{name}.element_weights"], expected, rtol=1e-3, atol=1e-9)
    assert all(name.startswith("model.layers.0.") for name in statistics.matrices)
