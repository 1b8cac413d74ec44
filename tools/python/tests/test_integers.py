"""Integers of groups: how they are packed and rounded, what is refused, and models that keep them in memory."""

from __future__ import annotations

import io
import json
from math import prod

import numpy as np
import pytest
import torch
from mpo_checkpoint import (
    CheckpointError,
    CompactMPOWeight,
    MPOCheckpoint,
    MPOConv1D,
    MPOEmbedding,
    MPOLinear,
    add_lora,
    from_pretrained,
    grouped,
    load_dense,
    load_into,
    parametrized,
    save,
)
from mpo_checkpoint.encoding import Encoding
from mpo_checkpoint.errors import Contradiction
from mpo_checkpoint.integers import GroupedArray, IntegerArray, ScaledArray
from mpo_checkpoint.integer_matrix import IntegerMatrix
from mpo_checkpoint.mpo_matrix import MPOMatrix
from mpo_checkpoint.safetensors_file import Entry, read_entries
from reference import Cut, write_checkpoint
from rewritten import SHARD, regrouped, rewritten_as, values_of
from test_models import assert_same_output, converted
from torch import nn

CASES = [(bits, group) for bits in grouped.BITS for group in (16, 128)]


# The format


@pytest.mark.parametrize("bits", grouped.BITS)
@pytest.mark.parametrize("columns", [1, 5, 16, 37, 64])
def test_codes_are_a_stream_of_bits(bits, columns):
    codes = np.random.default_rng(columns).integers(0, 1 << bits, (3, columns)).astype(np.uint8)
    data = grouped.packed_codes(codes, bits)
    assert data.shape == (3, -(-columns * bits // 8)) and data.dtype == np.uint8
    stream = np.unpackbits(data, axis=1, bitorder="little")
    for k in range(columns):
        each = stream[:, k * bits : (k + 1) * bits] @ (1 << np.arange(bits))
        np.testing.assert_array_equal(each, codes[:, k])
    assert not stream[:, columns * bits :].any()
    np.testing.assert_array_equal(grouped.unpacked_codes(data, bits, columns), codes)


@pytest.mark.parametrize(("bits", "group"), CASES)
def test_values_are_what_the_definition_says(bits, group):
    encoding = Encoding("grouped", "U8", None, None, bits, group, 37)
    array = np.random.default_rng(bits).standard_normal((2, 3, 37))
    encoding, entries = encoding.encode("a", array)
    raw = encoding.json()
    assert Encoding.parse(raw, array.shape, "dense", "a") == encoding
    assert {name: (e.dtype, e.shape) for name, e in entries.items()} == encoding.entries("a", array.shape)
    found = encoding.decode(entries, "a", array.shape, "a")
    assert found.dtype == np.float32 and found.shape == array.shape
    np.testing.assert_array_equal(found.reshape(6, 37), values_of(entries, "a", raw, 6).astype(np.float32))
    error = np.linalg.norm(found - array) / np.linalg.norm(array)
    assert error < {2: 0.5, 3: 0.25, 4: 0.13, 5: 0.065, 6: 0.033, 8: 0.009}[bits]


@pytest.mark.parametrize("bits", grouped.BITS)
def test_rounding_is_no_worse_than_the_largest_value_over_the_largest_code(bits):
    values = np.random.default_rng(0).standard_normal((50, 70)).astype(np.float32)
    codes, scales = grouped.rounded(values, bits, 16)
    assert codes.max() <= (1 << bits) - 1 and scales.dtype == np.float16 and scales.shape == (50, 5)
    decoded = grouped.decoded(grouped.packed_codes(codes, bits), scales, bits, 16, 70)
    zero = grouped.zero_of(bits)
    for start in range(0, 70, 16):
        part = values[:, start : start + 16]
        scale = (np.abs(part).max(1, keepdims=True) / ((1 << bits) - 1 - zero)).astype(np.float16).astype(np.float32)
        plain = (np.clip(np.rint(part / scale + zero), 0, (1 << bits) - 1) - zero) * scale
        ours = np.square(decoded[:, start : start + 16] - part).sum(1)
        assert (ours <= np.square(plain - part).sum(1) * (1 + 1e-5) + 1e-12).all()


def test_zeros_and_tiny_values_are_exact_or_zero():
    for bits in grouped.BITS:
        values = np.zeros((2, 20), np.float32)
        values[1, 3] = 1e-12
        codes, scales = grouped.rounded(values, bits, 16)
        found = grouped.decoded(grouped.packed_codes(codes, bits), scales, bits, 16, 20)
        assert np.abs(found).max() <= 1e-7 and not found[0].any()


def test_values_that_no_scale_reaches_are_refused():
    with pytest.raises(CheckpointError, match="float16"):
        grouped.rounded(np.full((1, 16), 1e9, np.float32), 2, 16)
    with pytest.raises(CheckpointError, match="not finite"):
        Encoding("grouped", "U8", None, None, 4, 16, 4).encode("a", np.full((1, 4), np.nan))


GOOD = {"kind": "grouped", "bits": 4, "group": 32, "columns": 6}


@pytest.mark.parametrize(
    ("change", "role", "message"),
    [
        ({"bits": 7}, "dense", "'bits' 7, not one of 2, 3, 4, 5, 6, 8"),
        ({"bits": 4.0}, "dense", "'bits' 4.0"),
        ({"bits": None}, "dense", "'bits' None"),
        ({"group": 48}, "dense", "'group' 48, not one of 16, 32, 64, 128"),
        ({"group": True}, "dense", "'group' True"),
        ({"columns": 0}, "dense", "'columns' 0"),
        ({"columns": "6"}, "dense", "'columns' 6, which is not a number"),
        ({"columns": 5}, "dense", "5 columns, which do not divide its 24 values"),
        ({}, "permutation", "a permutation with scales"),
        ({"pivots": "left"}, "central", "only an auxiliary core"),
        ({"pivots": "up"}, "auxiliary", "unknown side"),
    ],
)
def test_malformed_encodings_are_refused(change, role, message):
    assert Encoding.parse(GOOD, (4, 6), "dense", "x").columns == 6
    with pytest.raises(Contradiction, match=message):
        Encoding.parse(GOOD | change, (4, 6), role, "x")


@pytest.fixture
def small(tmp_path):
    tensors = {"a.weight": torch.randn(6, 21), "b.weight": torch.randn(64, 64)}
    cut = Cut((64, 1), (1, 64), bond=20, gauge="compact")
    written = write_checkpoint(tmp_path / "plain.mpo", tensors, {"b.weight": cut})
    return regrouped(written.folder, tmp_path / "small.mpo", {"a.*": (3, 16), "b.*": (4, 32)})


def rewritten(folder, change):
    """The same checkpoint with other entries."""
    from mpo_checkpoint.safetensors_file import write_entries
    from reference import file_object, sign

    entries = {n: Entry(e.dtype, e.shape, np.array(e.data)) for n, e in read_entries(folder / SHARD).items()}
    change(entries)
    write_entries(folder / SHARD, entries, {"format": "pt"})
    manifest = json.loads((folder / "manifest.json").read_text())
    sign(folder / "manifest.json", manifest | {"shards": [file_object(folder / SHARD)]})
    return folder


def _with(name, array, dtype):
    def change(entries):
        entries[name] = Entry.of(array, dtype)

    return change


def _shift(entries):
    entries["a.weight"].data.reshape(6, 8)[2, 7] |= 0x80


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with("a.weight", np.zeros((6, 9), np.uint8), "U8"), r"a.weight.*is U8 \[6, 9\], but the manifest says U8 \[6, 8\]"),
        (_with("a.weight", np.zeros((6, 8), np.int8), "I8"), r"a.weight.*is I8"),
        (_with("a.weight.scales", np.zeros((6, 1), np.float16), "F16"), r"scales.*is F16 \[6, 1\].*F16 \[6, 2\]"),
        (_with("a.weight.scales", np.zeros((6, 2), np.float32), "F32"), r"scales.*is F32"),
        (lambda entries: entries.pop("a.weight.scales"), "a.weight.scales is missing"),
        (_with("a.weight.scales", np.full((6, 2), np.inf), "F16"), "a.weight.*scale that is not finite"),
        (_with("a.weight.scales", np.full((6, 2), np.nan), "F16"), "a.weight.*scale that is not finite"),
        (_shift, "a.weight.*bits after the last code"),
    ],
)
def test_damaged_integers_are_refused(small, change, message):
    MPOCheckpoint(small).verify()
    rewritten(small, change)
    with pytest.raises(CheckpointError, match=message):
        MPOCheckpoint(small).verify()
    net = nn.ModuleDict({"a": nn.Linear(21, 6, bias=False), "b": nn.Linear(64, 64, bias=False)})
    with pytest.raises(CheckpointError, match=message):
        load_into(net, small, "none")


def test_scales_may_be_negative(small):
    scales = read_entries(small / SHARD)["a.weight.scales"].numpy()
    before = load_dense(small)["a.weight"]
    rewritten(small, _with("a.weight.scales", -scales, "F16"))
    np.testing.assert_array_equal(load_dense(small)["a.weight"], -before)


# Models


CHOICES = {"*.cores.*": (4, 32), "*.weight": (3, 64), "*wte*": (2, 16)}


def scaled(source, folder):
    """A copy of a checkpoint in which every F32 array with at least two axes is stored as int8 with scales."""
    return rewritten_as(source, folder, lambda pivots: Encoding("scaled", "I8", None, pivots))


def integers_of(model):
    return [module for module in model.modules() if isinstance(module, IntegerArray)]


@pytest.fixture
def bert(tiny_bert, tmp_path):
    """A model with low-rank matrices, chains and dense matrices, all stored as integers, and its dense model."""
    from transformers import BertModel

    model = BertModel(tiny_bert).eval()
    plain = converted(model, tmp_path / "plain-bert.mpo", gauge="compact").folder
    folder = regrouped(plain, tmp_path / "bert.mpo", CHOICES)
    model.load_state_dict({n: torch.tensor(v) for n, v in load_dense(folder).items()}, strict=False)
    return model, folder


@pytest.fixture
def gpt2(tiny_gpt2, tmp_path):
    """A model whose dense matrices are stored as integers."""
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel(tiny_gpt2).eval()
    tensors = {n: v.detach().clone() for n, v in model.named_parameters()}
    companions = {"config.json": model.config.to_json_string().encode()}
    plain = write_checkpoint(tmp_path / "plain-gpt2.mpo", tensors, {}, companions=companions).folder
    chosen = {"*wte*": (2, 16), "*.c_fc.weight": (3, 64), "*wpe*": (8, 32), "*.c_*.weight": (4, 32)}
    folder = regrouped(plain, tmp_path / "gpt2.mpo", chosen)
    model.load_state_dict({n: torch.tensor(v) for n, v in load_dense(folder).items()}, strict=False)
    return model, folder


@pytest.mark.parametrize("keeps_matrix", [True, False])
@pytest.mark.parametrize("trainable", ["none", "auxiliary", "all", "inner"])
def test_a_model_computes_what_its_restored_checkpoint_computes(bert, token_batch, keeps_matrix, trainable):
    dense, folder = bert
    model = from_pretrained(folder, trainable, keeps_matrix=keeps_matrix)
    assert bool(integers_of(model)) == (trainable != "inner")
    for _ in range(2):
        assert_same_output(dense, model, token_batch)
    if trainable != "inner":
        assert isinstance(model.encoder.layer[0].output.dense.weight, CompactMPOWeight)
        report = model.mpo_source.report
        assert "encoder.layer.0.output.dense.weight" in report.integers
        assert "never trained" in str(report)
        expected = sum(core.value_count for core in MPOCheckpoint(folder).cores.values())
        assert sum(array.numel() for array in integers_of(model) if isinstance(array, GroupedArray)) >= expected


@pytest.mark.parametrize("keeps_matrix", [True, False])
def test_dense_matrices_stay_integers_in_every_layer(gpt2, keeps_matrix):
    dense, folder = gpt2
    model = from_pretrained(folder, "none", task="causal-lm", keeps_matrix=keeps_matrix)
    block = model.transformer.h[0]
    assert isinstance(block.mlp.c_fc, MPOConv1D) and isinstance(block.mlp.c_fc.weight, IntegerMatrix)
    assert isinstance(model.transformer.wte, MPOEmbedding) and isinstance(model.lm_head, MPOLinear)
    assert model.lm_head.weight is model.transformer.wte.weight
    ids = torch.randint(0, 100, (2, 9))
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(model(ids).logits, dense(ids).logits, atol=2e-4, rtol=1e-3)
    kept = [module for module in model.modules() if isinstance(module, MPOMatrix) and module._kept]
    assert bool(kept) == keeps_matrix


def held_bytes(model):
    """The bytes of parameters and buffers, each counted once."""
    tensors = {t.data_ptr(): t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()] if t.numel()}
    return sum(tensors.values())


@pytest.mark.parametrize("kind", ["grouped", "scaled"])
def test_a_loaded_model_takes_little_more_memory_than_its_checkpoint(kind, tmp_path):
    """A dense and a low-rank matrix are integers; no floats remain in memory after a product."""
    tensors = {"a.weight": torch.randn(400, 256), "b.weight": torch.randn(512, 384), "b.bias": torch.randn(512)}
    cuts = {"b.weight": Cut((512, 1), (1, 384), bond=120, gauge="compact")}
    plain = write_checkpoint(tmp_path / "plain.mpo", tensors, cuts).folder
    if kind == "grouped":
        folder = regrouped(plain, tmp_path / "x.mpo", {"*.weight*": (4, 32)})
    else:
        folder = scaled(plain, tmp_path / "x.mpo")
    net = nn.ModuleDict({"a": nn.Embedding(400, 256), "b": nn.Linear(384, 512)})
    load_into(net, folder, "none", keeps_matrix=False)
    for _ in range(2):
        x = torch.randn(3, 384)
        expected = x @ torch.from_numpy(load_dense(folder)["b.weight"]).T + net["b"].bias
        torch.testing.assert_close(net["b"](x), expected, atol=1e-3, rtol=1e-3)
        net["a"](torch.tensor([1, 2]))
    stored = sum(entry.data.size for entry in read_entries(folder / SHARD).values())
    assert held_bytes(net) <= 1.2 * stored


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_saving_writes_the_same_entries(name, request, tmp_path):
    _, folder = request.getfixturevalue(name)
    model = from_pretrained(folder, "auxiliary", task="features" if name == "bert" else "causal-lm")
    save(model, tmp_path / "x.mpo")
    old, new = read_entries(folder / SHARD), read_entries(tmp_path / "x.mpo" / SHARD)
    assert old.keys() == new.keys()
    for entry, value in old.items():
        assert (value.dtype, value.shape, value.data.tobytes()) == (new[entry].dtype, new[entry].shape, new[entry].data.tobytes())
    MPOCheckpoint(tmp_path / "x.mpo").verify()


def test_integers_are_not_trained(gpt2, tmp_path):
    _, folder = gpt2
    model = from_pretrained(folder, "all", task="causal-lm")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained and all(p.ndim == 1 for p in trained)
    optimizer = torch.optim.AdamW(trained, 1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randint(0, 100, (2, 9))).logits.square().mean().backward()
        optimizer.step()
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    save(model, tmp_path / "x.mpo")
    old, new = load_dense(folder), load_dense(tmp_path / "x.mpo")
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed and all(old[name].ndim == 1 for name in changed)


@pytest.mark.parametrize("which", ["central", "auxiliary"])
def test_cores_beside_integers_are_trained_and_saved(which, tmp_path):
    """A low-rank matrix and a chain have one core of integers each; the other cores are floats."""
    tensors = {"a.weight": torch.randn(40, 64), "b.weight": torch.randn(64, 64)}
    cuts = {
        "a.weight": Cut((40, 1), (1, 64), bond=20, gauge="compact"),
        "b.weight": Cut((4, 4, 4), (4, 4, 4), bond=12, gauge="compact"),
    }
    plain = write_checkpoint(tmp_path / "plain.mpo", tensors, cuts).folder
    roles = {core.name: core.role for core in MPOCheckpoint(plain).cores.values()}
    chosen = {name: (4, 32) for name, role in roles.items() if role == which}
    folder = regrouped(plain, tmp_path / "x.mpo", chosen)
    net = nn.ModuleDict({"a": nn.Linear(64, 40, bias=False), "b": nn.Linear(64, 64, bias=False)})
    report = load_into(net, folder, "all")
    assert report.trainable[which] == 0 and report.trainable["central" if which == "auxiliary" else "auxiliary"] > 0
    x = torch.randn(5, 64)
    expected = load_dense(folder)
    for name in "ab":
        torch.testing.assert_close(net[name](x), x @ torch.from_numpy(expected[f"{name}.weight"]).T, atol=1e-4, rtol=1e-4)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 1e-2)
    sum(net[name](x).square().mean() for name in "ab").backward()
    optimizer.step()
    save(net, tmp_path / "y.mpo")
    saved = load_dense(tmp_path / "y.mpo")
    old, new = read_entries(folder / SHARD), read_entries(tmp_path / "y.mpo" / SHARD)
    for name in chosen:
        if name in old:
            assert old[name].data.tobytes() == new[name].data.tobytes()
    for name in "ab":
        assert not np.allclose(saved[f"{name}.weight"], expected[f"{name}.weight"], atol=1e-5)
        np.testing.assert_allclose(saved[f"{name}.weight"], net[name].weight.matrix().detach(), atol=1e-4)
    MPOCheckpoint(tmp_path / "y.mpo").verify()


def test_inputs_get_gradients_through_integers(gpt2):
    dense, folder = gpt2
    model = from_pretrained(folder, "none", task="causal-lm", keeps_matrix=False)
    inputs = torch.randn(2, 5, 64)
    gradients = []
    for each in (dense, model):
        x = inputs.clone().requires_grad_()
        each(inputs_embeds=x).logits.square().mean().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-3)


def test_state_dicts_and_torch_save(gpt2):
    _, folder = gpt2
    model = from_pretrained(folder, "none", task="causal-lm")
    ids = torch.randint(0, 100, (1, 6))
    with torch.no_grad():
        expected = model(ids).logits
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        again = torch.load(file, weights_only=False)
        torch.testing.assert_close(again(ids).logits, expected)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        assert "transformer.h.0.mlp.c_fc.weight.array.codes" in state
        for name, value in model.state_dict().items():
            if name.endswith("codes"):
                value.zero_()
        assert not torch.allclose(model(ids).logits, expected)
        model.load_state_dict(state)
        torch.testing.assert_close(model(ids).logits, expected)


def test_codes_of_a_loaded_state_dict_are_saved(gpt2, tmp_path):
    _, folder = gpt2
    model = from_pretrained(folder, "none", task="causal-lm")
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight.array.codes[0].zero_()
    save(model, tmp_path / "x.mpo")
    name = "transformer.h.0.mlp.c_fc.weight"
    assert not np.array_equal(load_dense(tmp_path / "x.mpo")[name][0], load_dense(folder)[name][0])
    np.testing.assert_array_equal(load_dense(tmp_path / "x.mpo")[name][1:], load_dense(folder)[name][1:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_casts_change_only_the_dtype_of_products(bert, dtype):
    _, folder = bert
    model = from_pretrained(folder, "none")
    before = [array.scale_bytes.clone() for array in integers_of(model)]
    model.to(dtype)
    assert all(torch.equal(a.scale_bytes, b) and a.dtype == dtype for a, b in zip(integers_of(model), before))
    assert model(torch.randint(0, 100, (2, 7))).last_hidden_state.dtype == dtype


def test_rows_of_codes_need_not_be_rows_of_the_matrix(tmp_path):
    """A row of codes is a part of a row of the matrix, several rows, or neither."""
    matrix = torch.randn(12, 40)
    plain = write_checkpoint(tmp_path / "plain.mpo", {"a.weight": matrix}, {}).folder
    for width in (20, 80, 16, 480, 1):
        folder = regrouped(plain, tmp_path / f"{width}.mpo", {"a.weight": (4, 16)}, columns=lambda shape, w=width: w)
        expected = torch.from_numpy(load_dense(folder)["a.weight"])
        net = nn.ModuleDict({"a": nn.Embedding(12, 40)})
        load_into(net, folder, "none", keeps_matrix=False)
        ids = torch.tensor([[3, 0], [11, 3]])
        torch.testing.assert_close(net["a"](ids), expected[ids])
        net = nn.ModuleDict({"a": nn.Linear(40, 12, bias=False)})
        load_into(net, folder, "none", keeps_matrix=False)
        x = torch.randn(3, 40)
        torch.testing.assert_close(net["a"](x), x @ expected.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 1, 12), (12, 1, 8, 1), (3, 4, 5, 2)])
def test_bytes_with_scales_that_broadcast(shape):
    """The encoding scaled, as buffers: whole, by rows, and in products."""
    array = np.random.default_rng(0).standard_normal(shape)
    encoding, entries = Encoding("scaled", "I8").encode("a", array)
    expected = torch.from_numpy(encoding.decode(entries, "a", shape, "a"))
    codes, scales = (torch.from_numpy(np.array(entries[name].numpy())) for name in ("a", "a.scales"))
    held = ScaledArray(codes, scales, shape, torch.zeros(0))
    torch.testing.assert_close(held.dense(), expected)
    for columns in {shape[-1], prod(shape[2:]), 8, 12}:
        rows = array.size // columns
        flat = expected.reshape(rows, columns)
        torch.testing.assert_close(held.product(torch.eye(columns), rows, columns, False), flat.T)
        torch.testing.assert_close(held.product(torch.eye(rows), rows, columns, True), flat)


def test_rows_with_their_own_scale_are_decoded_singly():
    """Each row has a scale, as in int8 central cores with long rows."""
    shape = (1, 300, 1, 200)
    array = np.random.default_rng(0).standard_normal(shape) * np.arange(1, 301)[None, :, None, None]
    encoding, entries = Encoding("scaled", "I8").encode("a", array)
    assert encoding.scale_shape == (1, 300, 1, 1)
    codes, scales = (torch.from_numpy(np.array(entries[name].numpy())) for name in ("a", "a.scales"))
    held = ScaledArray(codes, scales, shape, torch.zeros(0))
    assert held.is_in_rows(200)
    expected = torch.from_numpy(encoding.decode(entries, "a", shape, "a")).reshape(300, 200)
    torch.testing.assert_close(held.rows(7, 9, 200), expected[7:9])
    torch.testing.assert_close(held.selected(torch.tensor([299, 4]), 200), expected[[299, 4]])


def test_an_adapter_does_not_change_integers(gpt2, tmp_path):
    _, folder = gpt2
    model = from_pretrained(folder, "none", task="causal-lm")
    adapters = add_lora(model, 2, include=["*c_fc"])
    with torch.no_grad():
        for adapter in adapters.values():
            adapter.cores[0].normal_()
            adapter.cores[-1].normal_()
    ids = torch.randint(0, 100, (1, 6))
    with torch.no_grad():
        expected = model(ids).logits
    save(model, tmp_path / "x.mpo")
    saved = MPOCheckpoint(tmp_path / "x.mpo")
    saved.verify()
    tensor = saved.tensors["transformer.h.0.mlp.c_fc.weight"]
    assert tensor.kind == "mpo" and len(tensor.blocks[0]) == 2
    kinds = {saved.cores[core].encoding.kind for op in tensor.operators for core in saved.operators[op].cores}
    assert "grouped" in kinds
    again = from_pretrained(tmp_path / "x.mpo", "none", task="causal-lm")
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, expected, atol=2e-4, rtol=1e-3)


def test_integers_can_not_be_parametrized(bert):
    _, folder = bert
    with pytest.raises(ValueError, match="stored as integers"):
        parametrized(from_pretrained(folder, "none"))


def test_transformers_loads_and_saves_integers(bert, gpt2, token_batch, tmp_path):
    from test_transformers import announced
    from transformers import AutoModel, AutoModelForCausalLM

    class Written:
        def __init__(self, folder):
            self.folder = folder

        def rewrite_manifest(self, change):
            from reference import sign

            path = self.folder / "manifest.json"
            manifest = json.loads(path.read_text())
            change(manifest)
            sign(path, manifest)

    for (dense, folder), kind in ((bert, AutoModel), (gpt2, AutoModelForCausalLM)):
        folder = announced(Written(folder))
        model = kind.from_pretrained(folder)
        assert integers_of(model)
        assert all(not array.codes.is_meta for array in integers_of(model))
        batch = token_batch if kind is AutoModel else {"input_ids": torch.randint(0, 100, (2, 6))}
        assert_same_output(dense, model.eval(), batch) if kind is AutoModel else torch.testing.assert_close(
            model.eval()(**batch).logits, dense(**batch).logits, atol=2e-4, rtol=1e-3
        )
        model.save_pretrained(tmp_path / kind.__name__)
        old, new = read_entries(folder / SHARD), read_entries(tmp_path / kind.__name__ / SHARD)
        assert {n: e.data.tobytes() for n, e in old.items()} == {n: e.data.tobytes() for n, e in new.items()}
        half = kind.from_pretrained(folder, dtype=torch.bfloat16)
        assert all(array.dtype == torch.bfloat16 for array in integers_of(half))


@pytest.mark.parametrize("bits", grouped.BITS)
def test_buffers_are_decoded_as_the_file_is(bits):
    """All codes of each width occur at every place in a byte."""
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (4, 75)).astype(np.uint8)
    data, scales = grouped.packed_codes(codes, bits), np.random.default_rng(0).standard_normal((4, 5)).astype(np.float16)
    held = GroupedArray(torch.from_numpy(data), torch.from_numpy(scales), (4, 75), torch.zeros(0), bits, 16, 75)
    np.testing.assert_array_equal(held.values().numpy(), grouped.decoded(data, scales, bits, 16, 75))
