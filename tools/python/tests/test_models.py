"""Whole models: loaded, trained by role, saved."""

from __future__ import annotations

import json
from dataclasses import replace

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
    from_pretrained,
    load_dense,
    load_into,
    save,
)
from reference import Cut, file_object, write_checkpoint
from safetensors.torch import load_file, save_file
from torch import nn

SQUARE = Cut((2, 4, 2, 4), (4, 2, 4, 2), bond=20)  # 64 × 64
CUTS = {
    (64, 64): SQUARE,
    (96, 64): Cut((4, 6, 4), (4, 4, 4), bond=30),
    (64, 96): Cut((64, 1), (1, 96), bond=20),
    (100, 64): Cut((5, 5, 5), (4, 4, 4), bond=40),  # padded
    (64, 192): Cut((4, 4, 4), (4, 12, 4), bond=40),
    (64, 256): Cut((4, 4, 4), (4, 16, 4), bond=40),
    (256, 64): Cut((4, 16, 4), (4, 4, 4), bond=40),
}


def converted(model, folder, names=lambda name: name, ties=None, gauge="canonical", **options):
    """The checkpoint of a model with all matrices as cores, and the model with the restored values."""
    tensors = {names(n): v.clone() for n, v in model.state_dict().items() if n in dict(model.named_parameters())}
    tensors |= {name: tensors[target] for name, target in (ties or {}).items()}
    cuts = {
        n: replace(CUTS[tuple(v.shape)], gauge=gauge) for n, v in tensors.items() if v.ndim == 2 and min(v.shape) >= 64
    }
    companions = {"config.json": model.config.to_json_string().encode()} if hasattr(model, "config") else {}
    written = write_checkpoint(folder, tensors, cuts, ties=ties, companions=companions, **options)
    state = {n: written.dense[names(n)] for n in model.state_dict() if names(n) in written.dense}
    model.load_state_dict(state, strict=False)
    return written


@pytest.fixture
def bert(tiny_bert, tmp_path):
    from transformers import BertModel

    model = BertModel(tiny_bert).eval()
    return model, converted(model, tmp_path / "bert.mpo").folder


def assert_same_output(a, b, batch):
    with torch.no_grad():
        for expected, found in zip(a(**batch).to_tuple(), b(**batch).to_tuple()):
            if not isinstance(expected, torch.Tensor):
                continue
            torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


def test_bert_computes_what_its_restored_checkpoint_computes(bert, token_batch):
    dense, folder = bert
    model = from_pretrained(folder)
    assert isinstance(model.embeddings.word_embeddings, MPOEmbedding)
    assert isinstance(model.encoder.layer[0].attention.self.query, MPOLinear)
    assert isinstance(model.embeddings.token_type_embeddings, nn.Embedding)
    assert_same_output(dense, model, token_batch)
    report = model.mpo_source.report
    assert not report.new and not report.unused and not report.restored


@pytest.mark.parametrize("trainable", ["none", "auxiliary"])
def test_a_compact_bert_computes_what_its_restored_checkpoint_computes(tiny_bert, token_batch, tmp_path, trainable):
    from transformers import BertModel

    dense = BertModel(tiny_bert).eval()
    folder = converted(dense, tmp_path / "bert.mpo", gauge="compact").folder
    model = from_pretrained(folder, trainable)
    assert_same_output(dense, model, token_batch)
    report = model.mpo_source.report
    weight = model.encoder.layer[0].output.dense.weight
    assert isinstance(weight, CompactMPOWeight) == (trainable == "none")
    assert report.parameters_stored == json.loads((folder / "manifest.json").read_text())["totals"]["parameters_stored"]
    assert report.parameters.total() > report.parameters_stored, "chains of several sites are whole"
    save(model, tmp_path / "again.mpo")
    old, new = (load_file(path / "tensors.safetensors") for path in (folder, tmp_path / "again.mpo"))
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)


def test_load_dense_and_the_model_agree(bert):
    dense, folder = bert
    for name, value in load_dense(folder).items():
        np.testing.assert_allclose(value, dense.state_dict()[name], atol=1e-5, err_msg=name)


def test_the_state_dict_is_the_file(bert):
    _, folder = bert
    model, entries = from_pretrained(folder), load_file(folder / "tensors.safetensors")
    buffers = {name for name, _ in model.named_buffers()}
    assert set(model.state_dict()) - buffers == set(entries)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.load_state_dict(entries, strict=False)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in entries.items())


def test_the_shards_together_are_the_state_dict(tmp_path):
    tensors = {"0.weight": torch.randn(64, 64), "1.weight": torch.randn(96, 64)}
    written = write_checkpoint(tmp_path / "x.mpo", tensors, {n: CUTS[tuple(t.shape)] for n, t in tensors.items()})
    path = written.folder / "tensors.safetensors"
    entries = load_file(path)
    path.unlink()
    shards = [written.folder / f"tensors-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for shard, layer in zip(shards, "01"):
        save_file({name: entry for name, entry in entries.items() if name.startswith(layer)}, shard)
    written.rewrite_manifest(lambda manifest: manifest.update(shards=[file_object(shard) for shard in shards]))

    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 96, bias=False))
    load_into(model, written.folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.load_state_dict(load_file(shards[0]) | load_file(shards[1]))
    assert all(torch.equal(value, entries[name]) for name, value in model.state_dict().items())


def test_one_factor_of_a_low_rank_matrix_is_auxiliary(tmp_path):
    written = write_checkpoint(tmp_path / "x.mpo", {"0.weight": torch.randn(64, 96)}, {"0.weight": CUTS[(64, 96)]})
    for trainable, learning in {"auxiliary": [True, False], "all": [True, True]}.items():
        model = nn.Sequential(nn.Linear(96, 64, bias=False))
        load_into(model, written.folder, trainable)
        assert [core.requires_grad for core in model[0].weight.cores] == learning


@pytest.mark.parametrize(
    ("trainable", "central", "auxiliary", "vectors", "matrices"),
    [
        ("auxiliary", False, True, True, False),
        ("all", True, True, True, True),
        ("central", True, False, True, False),
        ("none", False, False, False, False),
    ],
)
def test_what_is_trained(bert, trainable, central, auxiliary, vectors, matrices):
    model = from_pretrained(bert[1], trainable)
    weight = model.encoder.layer[0].attention.self.query.weight
    assert weight.central_core.requires_grad is central
    assert all(core.requires_grad is auxiliary for core in weight.auxiliary_cores)
    assert model.encoder.layer[0].attention.self.query.bias.requires_grad is vectors
    assert model.embeddings.LayerNorm.weight.requires_grad is vectors
    assert model.embeddings.token_type_embeddings.weight.requires_grad is matrices
    report = model.mpo_source.report
    assert report.trainable.total() == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert report.parameters.total() == sum(p.numel() for p in model.parameters())
    assert report.parameters.total() == report.parameters_stored, "no core is compact here"
    assert f"{report.trainable.total():,}" in str(report)


def test_vectors_and_dense_matrices_are_trained_by_choice(bert):
    model = from_pretrained(bert[1], vectors=False, matrices=True)
    assert not model.embeddings.LayerNorm.weight.requires_grad
    assert model.embeddings.token_type_embeddings.weight.requires_grad


def test_counts_are_those_of_the_manifest(bert):
    totals = json.loads((bert[1] / "manifest.json").read_text())["totals"]
    report = from_pretrained(bert[1]).mpo_source.report
    assert report.parameters_stored == totals["parameters_stored"]
    assert report.parameters_before == totals["parameters_before"]


def test_gpt2_with_tied_head(tiny_gpt2, token_batch, tmp_path):
    from transformers import GPT2LMHeadModel

    dense = GPT2LMHeadModel(tiny_gpt2).eval()
    folder = converted(dense, tmp_path / "gpt2.mpo", ties={"lm_head.weight": "transformer.wte.weight"}).folder
    model = from_pretrained(folder, task="causal-lm")
    assert isinstance(model.transformer.h[0].mlp.c_fc, MPOConv1D)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert_same_output(dense, model, token_batch)
    assert not model.mpo_source.report.unused


@pytest.mark.parametrize("is_prefixed", [True, False])
def test_prefixes_of_the_base_model_are_bridged(tiny_bert, token_batch, tmp_path, is_prefixed):
    from transformers import BertForSequenceClassification, BertModel

    dense = BertModel(tiny_bert).eval()
    names = (lambda name: "bert." + name) if is_prefixed else (lambda name: name)
    folder = converted(dense, tmp_path / "x.mpo", names=names).folder
    assert_same_output(dense, from_pretrained(folder), token_batch)
    classifier = from_pretrained(folder, task="sequence-classification", num_labels=3)
    assert isinstance(classifier, BertForSequenceClassification)
    assert_same_output(dense, classifier.bert, token_batch)
    assert sorted(classifier.mpo_source.report.new) == ["classifier.bias", "classifier.weight"]
    assert classifier.classifier.weight.requires_grad


def test_a_model_of_any_kind(tmp_path, tiny_bert):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64, bias=False))
            self.attention = nn.MultiheadAttention(64, 4, batch_first=True)

        def forward(self, x):
            y = self.inside(x)
            return self.attention(y, y, y)[0]

    dense = Net().eval()
    CUTS[(192, 64)] = Cut((4, 12, 4), (4, 4, 4))
    folder = converted(dense, tmp_path / "x.mpo").folder
    model = Net().eval()
    report = load_into(model, folder)
    assert sorted(report.restored) == ["attention.in_proj_weight", "attention.out_proj.weight"]
    x = torch.randn(2, 5, 64)
    torch.testing.assert_close(model(x), dense(x), atol=1e-4, rtol=1e-3)
    save(model, tmp_path / "y.mpo")
    assert {r.name: r.kind for r in MPOCheckpoint(tmp_path / "y.mpo")} == {
        r.name: r.kind for r in MPOCheckpoint(folder)
    }
    with torch.no_grad():
        model.attention.out_proj.weight.add_(1)
    save(model, tmp_path / "z.mpo")
    assert MPOCheckpoint(tmp_path / "z.mpo").tensors["attention.out_proj.weight"].kind == "dense"
    np.testing.assert_array_equal(
        load_dense(tmp_path / "z.mpo")["attention.out_proj.weight"], model.attention.out_proj.weight.detach()
    )


def test_subclasses_that_do_more_are_restored_to_dense(tmp_path):
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    dense = nn.ModuleDict({"a": Scaled(64, 64)})
    folder = converted(dense, tmp_path / "x.mpo").folder
    model = nn.ModuleDict({"a": Scaled(64, 64)})
    assert load_into(model, folder).restored == ["a.weight"]
    torch.testing.assert_close(model["a"].weight, dense["a"].weight, atol=1e-5, rtol=1e-4)


def test_another_architecture_is_refused(bert, tmp_path):
    with pytest.raises(CheckpointError, match="another architecture"):
        load_into(nn.ModuleDict({"a": nn.Linear(4, 4)}), bert[1])
    with pytest.raises(CheckpointError, match="does not fit"):
        from_pretrained(bert[1], type_vocab_size=3)


def test_a_model_is_loaded_once(bert):
    model = from_pretrained(bert[1])
    with pytest.raises(ValueError, match="already"):
        load_into(model, bert[1])


def test_half_precision_models(bert, token_batch):
    dense, folder = bert
    model = from_pretrained(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        found = model(**token_batch).last_hidden_state.float()
        torch.testing.assert_close(found, dense(**token_batch).last_hidden_state, atol=0.3, rtol=0.1)


class TestSaving:
    def test_nothing_changes_when_nothing_was_trained(self, bert, tmp_path):
        save(from_pretrained(bert[1]), tmp_path / "again.mpo")
        old, new = MPOCheckpoint(bert[1]), MPOCheckpoint(tmp_path / "again.mpo")
        for kind in ("tensors", "operators", "cores"):
            assert new.manifest.raw[kind] == old.manifest.raw[kind]
        assert load_file(bert[1] / "tensors.safetensors").keys() == load_file(new.path / "tensors.safetensors").keys()
        assert new.manifest.raw["totals"]["relative_error"] > 0
        assert (new.path / "config.json").read_bytes() == (old.path / "config.json").read_bytes()
        new.manifest.check_checksums()

    def test_training_shows_in_values_and_errors(self, bert, tmp_path, token_batch):
        model = from_pretrained(bert[1]).train()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
        model(**token_batch).last_hidden_state[..., 0].square().mean().backward()
        optimizer.step()
        model.eval()
        save(model, tmp_path / "tuned.mpo")
        old, new = MPOCheckpoint(bert[1]), MPOCheckpoint(tmp_path / "tuned.mpo")
        query = "encoder.layer.0.attention.self.query.weight"
        assert "relative_error" in old.tensors[query].raw
        assert "relative_error" not in new.tensors[query].raw
        assert new.tensors[query].raw["norm"] == old.tensors[query].raw["norm"]
        assert "relative_error" in new.tensors["pooler.dense.weight"].raw, "the loss does not depend on it"
        assert "relative_error" not in new.manifest.raw["totals"]
        central, auxiliary = (load_file(p.path / "tensors.safetensors") for p in (old, new))
        assert torch.equal(central[query + ".cores.1"], auxiliary[query + ".cores.1"]), "frozen"
        assert not torch.equal(central[query + ".cores.0"], auxiliary[query + ".cores.0"])
        assert_same_output(model, from_pretrained(new.path), token_batch)

    def test_tied_weights_stay_tied(self, tiny_gpt2, tmp_path):
        from transformers import GPT2LMHeadModel

        dense = GPT2LMHeadModel(tiny_gpt2).eval()
        folder = converted(dense, tmp_path / "gpt2.mpo", ties={"lm_head.weight": "transformer.wte.weight"}).folder
        model = from_pretrained(folder, task="causal-lm")
        with torch.no_grad():
            model.lm_head.weight.cores[0].mul_(2)
        save(model, tmp_path / "x.mpo")
        new = MPOCheckpoint(tmp_path / "x.mpo")
        assert new.tensors["lm_head.weight"].tied_to == "transformer.wte.weight"
        torch.testing.assert_close(
            torch.from_numpy(new.tensor("lm_head.weight")), 2 * dense.lm_head.weight.detach(), atol=1e-4, rtol=1e-3
        )

    def test_a_new_head_is_added(self, bert, tmp_path, token_batch):
        model = from_pretrained(bert[1], task="sequence-classification", num_labels=3)
        save(model, tmp_path / "x.mpo")
        again = from_pretrained(tmp_path / "x.mpo", task="sequence-classification")
        assert not again.mpo_source.report.new
        assert_same_output(model, again, token_batch)

    def test_what_the_model_does_not_have_is_kept(self, bert, tmp_path, tiny_bert):
        from transformers import BertModel

        model = BertModel(tiny_bert, add_pooling_layer=False)
        assert load_into(model, bert[1]).unused == ["pooler.dense.weight", "pooler.dense.bias"]
        save(model, tmp_path / "x.mpo")
        np.testing.assert_array_equal(
            load_dense(tmp_path / "x.mpo")["pooler.dense.weight"], load_dense(bert[1])["pooler.dense.weight"]
        )

    def test_dtypes_of_the_checkpoint_are_kept(self, tmp_path):
        tensors = {"a.weight": torch.randn(64, 64).bfloat16(), "a.bias": torch.randn(64).half()}
        folder = write_checkpoint(tmp_path / "x.mpo", tensors, {"a.weight": SQUARE}).folder
        model = nn.ModuleDict({"a": nn.Linear(64, 64)})
        load_into(model, folder)
        save(model, tmp_path / "y.mpo")
        old, new = (load_file(path / "tensors.safetensors") for path in (folder, tmp_path / "y.mpo"))
        assert all(torch.equal(old[name], new[name]) and old[name].dtype == new[name].dtype for name in old)

    def test_nothing_is_replaced_without_force(self, bert, tmp_path):
        model, target = from_pretrained(bert[1]), tmp_path / "x.mpo"
        save(model, target)
        with pytest.raises(CheckpointError, match="exists; pass force"):
            save(model, target)
        save(model, target, force=True)
        (tmp_path / "folder").mkdir()
        with pytest.raises(CheckpointError, match="not replaced"):
            save(model, tmp_path / "folder", force=True)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["bert.mpo", "folder", "x.mpo"]

    def test_a_checkpoint_can_replace_the_one_that_was_loaded(self, bert):
        model = from_pretrained(bert[1])
        save(model, bert[1], force=True)
        from_pretrained(bert[1])

    def test_other_models_are_refused(self, tmp_path):
        with pytest.raises(CheckpointError, match="not loaded from"):
            save(nn.Linear(2, 2), tmp_path / "x.mpo")
