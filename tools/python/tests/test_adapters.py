"""LoRA and Deep LoRA beside layers: what they compute, how they are trained, saved and written for PEFT."""

from __future__ import annotations

import json

import pytest
import torch
from mpo_checkpoint import (
    CheckpointError,
    MPOCheckpoint,
    add_deep_lora,
    add_lora,
    from_pretrained,
    load_dense,
    load_into,
    parametrized,
    save,
    save_peft_adapter,
)
from mpo_checkpoint.adapters import adapters_of, first_gradients
from safetensors.torch import load_file
from test_models import assert_same_output, converted
from test_operators import BASE, model
from torch import nn


def loss_of(x):
    return lambda net: sum((layer(value) - 1).square().sum() for layer, value in zip(net.values(), x))


@pytest.fixture
def net():
    """One layer of each kind of operator; a tied pair, an int8 matrix, sums and ranges among them."""
    net = model()
    load_into(net, BASE, "none")
    return net


@pytest.fixture
def x(net):
    return [torch.randn(5, layer.in_features) for layer in net.values()]


def adapted(net, kind, x, **options):
    options = {"exclude": ["tied", "chain"]} | options
    return add_lora(net, 2, **options) if kind == "lora" else add_deep_lora(net, 2, loss_of(x), **options)


def train(net, x, steps=3):
    optimizer = torch.optim.Adam([core for a in adapters_of(net).values() for core in a.cores if core.requires_grad], 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(x)(net).backward()
        optimizer.step()


def test_lora_changes_nothing_at_first(net, x):
    expected = [layer(value) for layer, value in zip(net.values(), x)]
    adapters = adapted(net, "lora", x)
    assert adapters.keys() == net.keys() - {"tied", "chain"}
    assert all(adapter.rank == 2 and len(adapter.cores) == 2 for adapter in adapters.values())
    for layer, value, before in zip(net.values(), x, expected):
        torch.testing.assert_close(layer(value), before)


@pytest.mark.parametrize("frames", ["gradient", "half"])
@pytest.mark.parametrize("shape", [(9, 7), (7, 9)])
def test_deep_lora_lowers_the_loss_from_frames_that_are_isometries(frames, shape):
    net, value = nn.ModuleDict({"layer": nn.Linear(*shape)}), torch.randn(20, shape[0])
    loss = lambda net: (net["layer"](value) - 1).square().sum()  # noqa: E731
    with torch.no_grad():
        before = loss(net)
    gradient = torch.autograd.grad(loss(net), net["layer"].weight)[0]
    torch.testing.assert_close(first_gradients(net, {"layer": net["layer"]}, loss)["layer"], gradient)
    adapter = add_deep_lora(net, 4, loss, frames=frames)["layer"]
    left, right = adapter.cores[0][0, :, 0], adapter.cores[-1][:, 0, :, 0]
    torch.testing.assert_close(left.T @ left, torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(right @ right.T, torch.eye(4), atol=1e-5, rtol=0)
    u, _, v = torch.linalg.svd(gradient)
    count = 4 if frames == "gradient" else 2  # of the gradient's leading singular vectors that a frame has
    for frame, vectors in ((left, u[:, :count]), (right.T, v[:count].T)):
        torch.testing.assert_close(frame @ (frame.T @ vectors), vectors, atol=1e-5, rtol=0)
    torch.testing.assert_close(adapter.matrix(), 1e-3 * left @ right)
    assert [core.requires_grad for core in adapter.cores] == [False, True, True, True, False]
    if frames == "gradient":
        with torch.no_grad():
            assert loss(net) < before


@pytest.mark.parametrize("kind", ["lora", "deep"])
def test_only_adapters_are_trained_and_the_checkpoint_has_the_sum(net, x, tmp_path, kind):
    dense = load_dense(BASE)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    adapters = adapted(net, kind, x)
    train(net, x)
    assert all(torch.equal(before[name], p) for name, p in net.named_parameters() if name in before)
    report = net.mpo_source.report
    assert report.parameters["adapters"] == sum(core.numel() for a in adapters.values() for core in a.cores)
    assert report.trainable["adapters"] == sum(
        core.numel() for a in adapters.values() for core in a.cores if core.requires_grad
    )
    save(net, tmp_path / "x.mpo")
    checkpoint = MPOCheckpoint(tmp_path / "x.mpo")
    checkpoint.verify()
    for name, value in load_dense(tmp_path / "x.mpo").items():
        change = adapters.get(name.removesuffix(".weight"))
        expected = torch.tensor(dense[name]) + (0 if change is None else change.matrix().detach())
        torch.testing.assert_close(torch.tensor(value), expected, atol=1e-4, rtol=1e-4, msg=name)
        assert change is None or "relative_error" not in checkpoint.tensors[name].raw
    again = model()
    load_into(again, tmp_path / "x.mpo", "inner" if kind == "deep" else "none", vectors=False)
    for name, layer in again.items():
        value = torch.randn(4, layer.in_features)
        expected = net[name](value) if net[name].bias is None else net[name](value) - net[name].bias + layer.bias
        torch.testing.assert_close(layer(value), expected, atol=1e-4, rtol=1e-4)
    if kind == "deep":  # the inner cores of the adapters, and of what else is deep, can be trained on
        assert all(len(layer.weight.inner_cores) >= 3 for name, layer in again.items() if name in adapters)
        save(again, tmp_path / "y.mpo")
        old, new = (load_file(tmp_path / name / "tensors.safetensors") for name in ("x.mpo", "y.mpo"))
        assert all(torch.equal(old[name], new[name]) for name in old)


def test_a_second_adapter_is_one_more_term(net, x, tmp_path):
    adapted(net, "lora", x, include=["rank"])
    train(net, x)
    save(net, tmp_path / "x.mpo")
    again = model()
    load_into(again, tmp_path / "x.mpo", "none")
    first = again["rank"].weight.matrix().detach()
    adapter = add_lora(again, 1, include=["rank"])["rank"]
    train(again, x)
    save(again, tmp_path / "y.mpo")
    checkpoint = MPOCheckpoint(tmp_path / "y.mpo")
    assert [term.operator for term in checkpoint.tensors["rank.weight"].blocks[0]][1:] == [
        "rank.weight.adapter", "rank.weight.adapter.2",
    ]  # fmt: skip
    found = torch.from_numpy(checkpoint.tensor("rank.weight"))
    torch.testing.assert_close(found, first + adapter.matrix().detach(), atol=1e-5, rtol=1e-5)


def test_training_on_the_manifold_leaves_adapters_as_they_are(tiny_bert, token_batch, tmp_path):
    from transformers import BertModel

    net = from_pretrained(converted(BertModel(tiny_bert), tmp_path / "bert.mpo").folder, "all")
    adapters = add_lora(net, 2)
    for adapter in adapters.values():
        nn.init.normal_(adapter.cores[0], std=0.1)
    parametrized(net)
    assert adapters_of(net) == adapters
    save(net, tmp_path / "x.mpo")
    assert_same_output(net, from_pretrained(tmp_path / "x.mpo", "none"), token_batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(9, 7), (7, 9)])
def test_a_dense_matrix_with_an_adapter_is_saved_unchanged(tmp_path, shape, dtype):
    from reference import write_checkpoint

    tensors = {"0.weight": torch.randn(shape).to(dtype), "1.weight": torch.randn(3, shape[0])}
    folder = write_checkpoint(tmp_path / "x.mpo", tensors, {}).folder
    net = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False), nn.Linear(shape[0], 3, bias=False))
    load_into(net, folder, "none")
    adapter = add_lora(net, 2, include=["0"])["0"]
    nn.init.normal_(adapter.cores[0])
    save(net, tmp_path / "y.mpo")
    checkpoint = MPOCheckpoint(tmp_path / "y.mpo")
    base = checkpoint.operators["0.weight"]
    assert torch.equal(torch.from_numpy(checkpoint.matrix(base)), tensors["0.weight"].float())
    stored = sum(checkpoint.cores[name].value_count for name in base.cores)
    assert stored == shape[0] * shape[1], "an identity is not stored"
    assert checkpoint.cores[base.cores[base.central]].encoding.dtype == ("F32" if dtype == torch.float32 else "BF16")
    for trainable in ("none", "all"):
        again = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False), nn.Linear(shape[0], 3, bias=False))
        load_into(again, tmp_path / "y.mpo", trainable)
        value = torch.randn(4, shape[1])
        torch.testing.assert_close(again(value), net(value), atol=1e-5, rtol=1e-4)


def test_conv1d_layers_get_adapters_too(tiny_gpt2, token_batch, tmp_path):
    from transformers import GPT2Model

    folder = converted(GPT2Model(tiny_gpt2), tmp_path / "gpt2.mpo").folder
    net = from_pretrained(folder, "none")
    loss = lambda net: net(**token_batch).last_hidden_state.square().mean()  # noqa: E731
    adapters = add_deep_lora(net, 3, loss, scale=0.5)
    assert adapters.keys() == {f"h.{k}.{name}" for k in (0, 1) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}
    save(net, tmp_path / "x.mpo")
    assert_same_output(net, from_pretrained(tmp_path / "x.mpo", "none"), token_batch)
    assert_peft_adds_up(net, from_pretrained(folder, "none"), token_batch, tmp_path / "peft")


def assert_peft_adds_up(net, base, batch, folder):
    """The model without adapters and ``B A`` added to its matrices computes what the adapted model does."""
    save_peft_adapter(net, folder, base="somewhere")
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    assert config["peft_type"] == "LORA" and config["base_model_name_or_path"] == "somewhere"
    scale = config["lora_alpha"] / config["r"]
    assert len(tensors) == 2 * len(config["target_modules"])
    for path in config["target_modules"]:
        a, b = (tensors[f"base_model.model.{path}.lora_{which}.weight"] for which in "AB")
        assert a.shape[0] == b.shape[1] == config["rank_pattern"].get(path, config["r"])
        base.get_submodule(path).register_forward_hook(
            lambda module, arguments, result, change=scale * b @ a: result + arguments[0] @ change.T
        )
    assert_same_output(net, base, batch)


@pytest.mark.parametrize("kind", ["lora", "deep"])
def test_a_peft_adapter_is_for_the_restored_model(tiny_bert, token_batch, tmp_path, kind):
    from transformers import BertModel

    dense = BertModel(tiny_bert).eval()
    net = from_pretrained(converted(dense, tmp_path / "bert.mpo").folder, "none")
    if kind == "lora":
        for adapter in add_lora(net, 80, include=["encoder.*"]).values():  # more than some sides
            nn.init.normal_(adapter.cores[0], std=0.1)
    else:
        add_deep_lora(net, 4, lambda net: net(**token_batch).last_hidden_state.square().mean(), scale=0.5)
    assert_peft_adds_up(net, dense, token_batch, tmp_path / "peft")
    with pytest.raises(CheckpointError, match="exists; pass force"):
        save_peft_adapter(net, tmp_path / "peft")


def test_peft_loads_an_adapter(tiny_bert, token_batch, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import BertModel

    dense = BertModel(tiny_bert).eval()
    net = from_pretrained(converted(dense, tmp_path / "bert.mpo").folder, "none")
    add_deep_lora(net, 4, lambda net: net(**token_batch).last_hidden_state.square().mean(), scale=0.5)
    save_peft_adapter(net, tmp_path / "peft")
    assert_same_output(net, peft.PeftModel.from_pretrained(dense, tmp_path / "peft").eval(), token_batch)


def test_invalid_uses_of_adapters_are_refused(net, x, tmp_path):
    with pytest.raises(ValueError, match="no linear layer"):
        add_lora(net, 2, include=["nothing"])
    with pytest.raises(ValueError, match="rank is 0"):
        add_lora(net, 0)
    with pytest.raises(ValueError, match="depends on none"):
        add_deep_lora(net, 2, lambda net: net["q"](x[4]).sum(), include=["k"])
    with pytest.raises(CheckpointError, match="no adapters"):
        save_peft_adapter(net, tmp_path / "peft")
    assert add_lora(net, 2).keys() == net.keys() - {"chain", "tied"}, "a weight that two layers have gets no adapter"
    with pytest.raises(ValueError, match="q has an adapter already"):
        add_lora(net, 2, include=["q"])


def test_a_tied_tensor_can_not_have_an_adapter(tmp_path):
    from reference import write_checkpoint

    tensors = {"0.weight": torch.randn(7, 9), "1.weight": torch.randn(7, 9)}
    folder = write_checkpoint(tmp_path / "x.mpo", tensors, {}, ties={"1.weight": "0.weight"}).folder
    net = nn.ModuleList([nn.Linear(9, 7, bias=False), nn.Linear(9, 7, bias=False)])
    load_into(net, folder, "none")
    add_lora(net, 2, include=["0"])
    with pytest.raises(CheckpointError, match="tied to another tensor"):
        save(net, tmp_path / "y.mpo")
