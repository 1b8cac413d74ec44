"""What the built tool makes is loaded, and what is saved here the tool takes. The environment variable MPO names the tool."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from mpo_checkpoint import (
    CheckpointError,
    MPOCheckpoint,
    MPOMatrix,
    add_deep_lora,
    add_lora,
    from_pretrained,
    load_dense,
    save,
)
from safetensors.torch import load_file

pytestmark = pytest.mark.skipif(
    "MPO" not in os.environ, reason="the environment variable MPO does not name the built tool"
)


def mpo(*arguments):
    done = subprocess.run([os.environ["MPO"], *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tiny_bert, tmp_path):
    """A dense model folder."""
    from transformers import BertModel

    BertModel(tiny_bert).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.mark.parametrize(
    "options",
    [
        ["--ratio", 0.6],
        ["--ratio", 0.6, "--structure", "svd"],
        ["--ratio", 0.6, "--structure", "auto"],
        ["--lossless"],
        ["--bond", 12, "--dtype", "f16"],
        ["--bond", 12, "--dtype", "bf16"],
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_a_converted_model_computes_what_its_restored_one_does(folder, tmp_path, token_batch, options):
    from transformers import BertModel

    mpo("convert", folder, "-o", tmp_path / "x.mpo", *options)
    mpo("restore", tmp_path / "x.mpo", "-o", tmp_path / "restored")
    restored = load_file(tmp_path / "restored" / "model.safetensors")
    for name, value in load_dense(tmp_path / "x.mpo").items():
        np.testing.assert_allclose(value, restored[name], atol=1e-5, err_msg=name)
    dense = BertModel.from_pretrained(tmp_path / "restored").eval()
    model = from_pretrained(tmp_path / "x.mpo").eval()
    with torch.no_grad():
        torch.testing.assert_close(
            model(**token_batch).last_hidden_state, dense(**token_batch).last_hidden_state, atol=1e-4, rtol=1e-3
        )
    totals = MPOCheckpoint(tmp_path / "x.mpo").manifest.raw["totals"]
    assert model.mpo_source.report.parameters_stored == totals["parameters_stored"]


@pytest.fixture
def alike(tiny_bert, tmp_path):
    """A dense model folder whose square matrices have few directions of inputs and outputs, all of them the same."""
    from transformers import BertModel

    model = BertModel(tiny_bert)
    outputs, inputs, centre = torch.randn(64, 8) / 8, torch.randn(8, 64) / 8, torch.randn(8, 8)
    with torch.no_grad():
        for name, weight in model.encoder.named_parameters():
            if weight.shape == (64, 64):
                weight.mul_(0.1).add_(outputs @ (centre * torch.rand(8, 8)) @ inputs)
    model.save_pretrained(tmp_path / "alike")
    return tmp_path / "alike"


def trained_and_restored(model, tmp_path, token_batch):
    """The tensors that the tool restores of a model that took one step and was saved."""
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.1)
    model.train()(**token_batch).last_hidden_state.square().mean().backward()
    optimizer.step()
    save(model.eval(), tmp_path / "y.mpo")
    mpo("verify", tmp_path / "y.mpo")
    mpo("restore", tmp_path / "y.mpo", "-o", tmp_path / "y")
    return load_file(tmp_path / "y" / "model.safetensors")


@pytest.mark.parametrize(
    "options, names, shape",
    [
        (("--link", "encoder.layer.*.attention.self.{query,key}.weight"), ("query", "key"), (128, 64)),
        (("--link", "encoder.layer.*.attention.self.{query,key}.weight=outputs"), ("query", "key"), (64, 128)),
        (("--link-layers", "encoder.layer.*.attention.self.query.weight=2"), ("query",), (128, 64)),
    ],
)
def test_linked_matrices_are_trained_as_one_operator_and_saved_again(
    alike, tmp_path, token_batch, options, names, shape
):
    from transformers import BertModel

    budget = ("--matrix-ratio", 0.25, "--structure", "svd", "--include", "encoder.*.attention.self.*")
    mpo("convert", alike, "-o", tmp_path / "x.mpo", *budget, *options)
    mpo("restore", tmp_path / "x.mpo", "-o", tmp_path / "x")
    dense = BertModel.from_pretrained(tmp_path / "x").eval()
    model = from_pretrained(tmp_path / "x.mpo", "all")
    with torch.no_grad():
        torch.testing.assert_close(
            model(**token_batch).last_hidden_state, dense(**token_batch).last_hidden_state, atol=1e-4, rtol=1e-3
        )
    weights = [model.get_submodule(f"encoder.layer.{k}.attention.self.{n}.weight") for k in (0, 1) for n in names]
    assert weights[0].parts[0] is weights[1].parts[0] and weights[0].parts[0].matrix_shape == shape
    restored = trained_and_restored(model, tmp_path, token_batch)
    for k in (0, 1):
        for name in names:
            matrix = model.get_submodule(f"encoder.layer.{k}.attention.self.{name}.weight").matrix()
            found = restored[f"encoder.layer.{k}.attention.self.{name}.weight"]
            torch.testing.assert_close(found, matrix.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("residual", [[], ["--residual-rank", 3]])
def test_layers_that_share_a_central_core_are_trained_with_it_and_saved_again(folder, tmp_path, token_batch, residual):
    mpo(
        *("convert", folder, "-o", tmp_path / "x.mpo", "--ratio", 0.9),
        *("--share-central", "encoder.layer.*.attention.self.query.weight", *residual),
    )
    model = from_pretrained(tmp_path / "x.mpo", "all")
    queries = [layer.attention.self.query.weight for layer in model.encoder.layer]
    chains = [query.operators[0] for query in queries]
    assert chains[0].central_core is chains[1].central_core
    assert chains[0].cores[0] is not chains[1].cores[0]
    assert [len(query.operators) for query in queries] == [2 if residual else 1] * 2
    raw = MPOCheckpoint(tmp_path / "x.mpo").manifest.raw
    assert model.mpo_source.report.parameters_stored == raw["totals"]["parameters_stored"]
    restored = trained_and_restored(model, tmp_path, token_batch)
    for number, weight in enumerate(queries):
        found = restored[f"encoder.layer.{number}.attention.self.query.weight"]
        torch.testing.assert_close(found, weight.matrix().detach(), atol=1e-5, rtol=1e-4)


def test_the_inner_cores_of_deep_factors_are_trained_alone(folder, tmp_path, token_batch):
    mpo("convert", folder, "-o", tmp_path / "x.mpo", "--ratio", 0.6, "--structure", "svd", "--sites", 4)
    model = from_pretrained(tmp_path / "x.mpo", "inner", vectors=False)
    report = model.mpo_source.report
    weight = model.encoder.layer[0].intermediate.dense.weight
    rank = weight.cores[1].shape[0]
    assert [tuple(core.shape) for core in weight.inner_cores] == [(rank, 1, 1, rank)] * 2
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(name.endswith(("weight.cores.1", "weight.cores.2")) for name in trained)
    assert report.trainable.total() == report.parameters["inner"] == sum(
        core.numel() for module in model.modules() if isinstance(module, MPOMatrix) for core in module.inner_cores
    )
    frames = weight.cores[0].detach().clone()
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.1)
    model.train()(**token_batch).last_hidden_state.square().mean().backward()
    optimizer.step()
    save(model.eval(), tmp_path / "y.mpo")
    mpo("verify", tmp_path / "y.mpo")
    mpo("restore", tmp_path / "y.mpo", "-o", tmp_path / "y")
    restored = load_file(tmp_path / "y" / "model.safetensors")["encoder.layer.0.intermediate.dense.weight"]
    torch.testing.assert_close(restored, weight.matrix().detach(), atol=1e-5, rtol=1e-4)
    again = from_pretrained(tmp_path / "y.mpo", "inner").encoder.layer[0].intermediate.dense.weight
    torch.testing.assert_close(again.cores[0], frames, atol=0, rtol=0)
    for gauge in ("canonical", "compact", "spectral"):
        save(model, tmp_path / f"{gauge}.mpo", gauge=gauge)
        mpo("verify", tmp_path / f"{gauge}.mpo")
        found = MPOCheckpoint(tmp_path / f"{gauge}.mpo").tensor("encoder.layer.0.intermediate.dense.weight")
        np.testing.assert_allclose(found, restored, atol=1e-5)


@pytest.mark.parametrize("gauge", ["compact", "canonical", "spectral"])
def test_an_inner_core_of_a_low_rank_matrix_is_trained_and_multiplied_in(
    folder, tmp_path, token_batch, gauge
):
    from transformers import BertModel

    mpo("convert", folder, "-o", tmp_path / "x.mpo", "--ratio", 0.6, "--structure", "svd", "--gauge", gauge)
    mpo("restore", tmp_path / "x.mpo", "-o", tmp_path / "x")
    model = from_pretrained(tmp_path / "x.mpo", "inner")
    operators = MPOCheckpoint(tmp_path / "x.mpo").operators
    report = model.mpo_source.report
    assert report.trainable["inner"] == report.parameters["inner"] == sum(o.bonds[0] ** 2 for o in operators.values())
    assert not report.trainable["central"] and not report.trainable["auxiliary"]
    dense = BertModel.from_pretrained(tmp_path / "x").eval()
    with torch.no_grad():
        torch.testing.assert_close(
            model(**token_batch).last_hidden_state, dense(**token_batch).last_hidden_state, atol=1e-4, rtol=1e-3
        )
    save(model, tmp_path / "same.mpo")
    old, new = (load_file(tmp_path / name / "tensors.safetensors") for name in ("x.mpo", "same.mpo"))
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    weight, name = model.encoder.layer[0].intermediate.dense.weight, "encoder.layer.0.intermediate.dense.weight"
    with torch.no_grad():
        weight.cores[1].mul_(1.5)
    restored = trained_and_restored(model, tmp_path, token_batch)
    assert (restored[name] - dense.state_dict()[name]).norm() > 0.4 * restored[name].norm() / 1.5
    torch.testing.assert_close(restored[name], weight.matrix().detach(), atol=1e-5, rtol=1e-4)
    tuned = MPOCheckpoint(tmp_path / "y.mpo")
    assert {o.name: (o.bonds, o.gauge) for o in tuned.operators.values()} == {
        o.name: (o.bonds, o.gauge) for o in operators.values()
    }
    assert tuned.manifest.raw["totals"]["parameters_stored"] == report.parameters_stored


def test_training_inner_cores_needs_low_rank_matrices(folder, tmp_path):
    mpo("convert", folder, "-o", tmp_path / "x.mpo", "--ratio", 0.6, "--structure", "chain")
    with pytest.raises(CheckpointError, match="no low-rank matrices.*--structure svd"):
        from_pretrained(tmp_path / "x.mpo", "inner")


@pytest.mark.parametrize("options", [("--ratio", 0.6), ("--ratio", 0.6, "--structure", "chain"), ("--lossless",)])
@pytest.mark.parametrize("kind", ["lora", "deep"])
def test_the_tool_takes_adapters(folder, tmp_path, token_batch, options, kind):
    """With low-rank factors, chains and dense matrices."""
    mpo("convert", folder, "-o", tmp_path / "x.mpo", *options, "--exclude", "encoder.layer.1.*")
    model = from_pretrained(tmp_path / "x.mpo", "none")
    layers = ["encoder.layer.0.attention.*", "encoder.layer.1.output.dense", "encoder.layer.1.intermediate.dense"]
    if kind == "lora":
        adapters = add_lora(model, 3, include=layers)
    else:
        loss = lambda net: net(**token_batch).last_hidden_state.square().mean()  # noqa: E731
        adapters = add_deep_lora(model, 3, loss, include=layers, scale=0.5)
    assert len(adapters) == 6
    parameters = [core for adapter in adapters.values() for core in adapter.cores if core.requires_grad]
    optimizer = torch.optim.Adam(parameters, 0.05)
    model(**token_batch).last_hidden_state[..., 0].square().mean().backward()
    optimizer.step()
    before = {path: model.get_submodule(path).weight for path in adapters}
    save(model, tmp_path / "y.mpo")
    mpo("verify", tmp_path / "y.mpo")
    assert "encoder.layer.1.output.dense.weight" in mpo("inspect", tmp_path / "y.mpo")
    totals = json.loads(mpo("inspect", tmp_path / "y.mpo", "--json"))["totals"]
    plain = MPOCheckpoint(tmp_path / "x.mpo").manifest.raw["totals"]
    added = sum(core.numel() for adapter in adapters.values() for core in adapter.cores)
    assert totals["parameters_stored"] == plain["parameters_stored"] + added
    mpo("restore", tmp_path / "y.mpo", "-o", tmp_path / "y")
    restored = load_file(tmp_path / "y" / "model.safetensors")
    for path, adapter in adapters.items():
        matrix = before[path] if isinstance(before[path], torch.Tensor) else before[path].matrix()
        expected = (matrix + adapter.matrix()).detach()
        torch.testing.assert_close(restored[f"{path}.weight"], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("gauge", ["compact", "canonical", "spectral"])
def test_the_tool_takes_what_is_saved_in_any_gauge(folder, tmp_path, gauge):
    mpo("convert", folder, "-o", tmp_path / "x.mpo", "--ratio", 0.6)
    save(from_pretrained(tmp_path / "x.mpo", "none"), tmp_path / "y.mpo", gauge=gauge)
    mpo("verify", tmp_path / "y.mpo")
    for name in ("x", "y"):
        mpo("restore", tmp_path / f"{name}.mpo", "-o", tmp_path / name)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("x", "y"))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_the_tool_takes_a_fine_tuned_checkpoint(folder, tmp_path, token_batch, dtype):
    mpo("convert", folder, "-o", tmp_path / "x.mpo", "--bond", 16, "--dtype", dtype)
    model = from_pretrained(tmp_path / "x.mpo", vectors=False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    model(**token_batch).last_hidden_state[..., 0].square().mean().backward()
    optimizer.step()
    tuned = tmp_path / "tuned.mpo"
    save(model, tuned)

    mpo("verify", tuned)
    mpo("verify", tuned, "--against", folder)  # no vector was trained: those are the source's
    totals = json.loads(mpo("inspect", tuned, "--json"))["totals"]
    assert totals == json.loads((tuned / "manifest.json").read_text())["totals"] | totals
    before = json.loads((tmp_path / "x.mpo" / "manifest.json").read_text())["totals"]
    assert all(totals[name] == value for name, value in before.items() if name != "relative_error")
    mpo("restore", tuned, "-o", tmp_path / "tuned")
    restored = load_file(tmp_path / "tuned" / "model.safetensors")
    for name, value in load_dense(tuned).items():
        np.testing.assert_allclose(value, restored[name], atol=1e-5, err_msg=name)


def test_the_squeeze_loop_fine_tunes_with_it(folder, tmp_path):
    mpo("convert", folder, "-o", tmp_path / "x.mpo", "--bond", 16)
    script = tmp_path / "finetune.py"
    script.write_text(
        "import os, torch\n"
        "from mpo_checkpoint import from_pretrained, save\n"
        "model = from_pretrained(os.environ['MPO_CHECKPOINT'])\n"
        "with torch.no_grad():\n"
        "    [p.mul_(1.001) for p in model.parameters() if p.requires_grad]\n"
        "save(model, os.environ['MPO_OUTPUT'])\n"
    )
    result = mpo(
        "squeeze", tmp_path / "x.mpo", "-o", tmp_path / "y.mpo", "--max-drop", 1, "--step", "5%", "--max-steps", 1,
        "--finetune", f"{sys.executable} {script}", "--evaluate", "test -f {}/manifest.json && echo 1", "--json",
    )  # fmt: skip
    assert json.loads(result)["accepted"] == 1, result
    mpo("verify", tmp_path / "y.mpo")


@pytest.mark.parametrize("option, kind", [([], "row_gram"), (["--element-weights"], "element_weights")])
def test_statistics_from_the_command_line_guide_a_conversion(folder, tmp_path, option, kind):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", *(f"w{n}" for n in range(98))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    text = tmp_path / "text.txt"
    text.write_text("".join(f"w{n} w{n + 1} w{2 * n}\n" for n in range(40)))
    stats = tmp_path / "stats.safetensors"
    command = [sys.executable, "-m", "mpo_checkpoint", "calibrate", folder, text, "-o", stats, *option]
    subprocess.run(command, check=True, capture_output=True)
    assert any(name.endswith(kind) for name in load_file(stats))
    mpo("convert", folder, "-o", tmp_path / "x.mpo", "--ratio", 0.6, "--calibration", stats)
    records = MPOCheckpoint(tmp_path / "x.mpo").manifest.raw["tensors"]
    assert any(record.get("metric_relative_error") is not None for record in records)


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_restored_bf16_model_of_shards_is_a_folder_as_transformers_and_vllm_read_it(tmp_path, is_tied):
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=96, tie_word_embeddings=is_tied,
    )  # fmt: skip
    source, restored = tmp_path / "source", tmp_path / "restored"
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(source, max_shard_size="60KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).write_text("{}")
    mpo("convert", source, "-o", tmp_path / "x.mpo", "--ratio", 0.7, "--dtype", "bf16")
    mpo("restore", tmp_path / "x.mpo", "-o", restored)

    # Every file of the source and no other: weights in the shards that the index names, all else byte by byte.
    assert {path.name for path in restored.iterdir()} == {path.name for path in source.iterdir()}
    for path in source.iterdir():
        if path.suffix == ".json" and "index" not in path.name:
            assert (restored / path.name).read_bytes() == path.read_bytes(), path.name
    index = json.loads((restored / "model.safetensors.index.json").read_text())
    assert index == json.loads((source / "model.safetensors.index.json").read_text())
    shards = sorted(restored.glob("*.safetensors"))
    assert len(shards) > 1
    assert [path.name for path in shards] == [
        f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)
    ]
    found, size = {}, 0
    for path in shards:
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            for name in file.keys():
                tensor = file.get_tensor(name)
                assert name not in found and tensor.dtype == torch.bfloat16
                found[name] = path.name
                size += tensor.nbytes
    assert found == index["weight_map"] and size == index["metadata"]["total_size"]

    model, loading = AutoModelForCausalLM.from_pretrained(
        restored, dtype=torch.bfloat16, local_files_only=True, output_loading_info=True
    )
    assert not any(loading.values()), loading
    original = LlamaForCausalLM.from_pretrained(source, dtype=torch.bfloat16, local_files_only=True)
    name = "model.layers.1.mlp.up_proj.weight"
    change = (model.get_parameter(name) - original.get_parameter(name)).norm() / original.get_parameter(name).norm()
    assert 0 < change < 1
    assert model.generation_config.eos_token_id == original.generation_config.eos_token_id
    assert model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, min_new_tokens=3, do_sample=False).shape == (1, 6)


def test_chains_in_bases_are_loaded_trained_and_saved(folder, tmp_path, token_batch):
    from safetensors.torch import save_file
    from transformers import BertModel

    names = {
        name: tensor.shape
        for name, tensor in load_file(folder / "model.safetensors").items()
        if name.startswith("encoder") and tensor.ndim == 2
    }
    statistics = {}
    for name, shape in names.items():
        for side, size in zip(("row", "column"), shape):
            root = torch.randn(size, size // 2)
            statistics[f"{name}.{side}_gram"] = root @ root.T
    save_file(statistics, tmp_path / "s.safetensors", {"format": "mpo-statistics", "version": "2", "input_rows": "[]"})
    mpo(
        "convert", folder, "-o", tmp_path / "x.mpo", "--matrix-ratio", 0.7, "--structure", "chain", "--include", "encoder*",
        "--calibration", tmp_path / "s.safetensors",
    )  # fmt: skip
    checkpoint = MPOCheckpoint(tmp_path / "x.mpo")
    assert any(operator.basis_names for operator in checkpoint.operators.values())
    mpo("restore", tmp_path / "x.mpo", "-o", tmp_path / "restored")
    dense = BertModel.from_pretrained(tmp_path / "restored").eval()
    model = from_pretrained(tmp_path / "x.mpo", vectors=False).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            model(**token_batch).last_hidden_state, dense(**token_batch).last_hidden_state, atol=1e-4, rtol=1e-3
        )
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    model.train()(**token_batch).last_hidden_state[..., 0].square().mean().backward()
    optimizer.step()
    save(model, tmp_path / "tuned.mpo")
    mpo("verify", tmp_path / "tuned.mpo")
    tuned, changed = MPOCheckpoint(tmp_path / "tuned.mpo"), False
    for operator in checkpoint.operators.values():
        for name in operator.basis_names:
            np.testing.assert_array_equal(tuned.core(name), checkpoint.core(name), err_msg=name)
        changed |= any(not np.array_equal(tuned.core(name), checkpoint.core(name)) for name in operator.cores)
    assert changed


@pytest.mark.parametrize("is_stacked", [False, True])
def test_experts_are_converted_in_the_metric_of_their_own_statistics(tmp_path, is_stacked):
    from mpo_checkpoint.huggingface import calibrate_language_model
    from safetensors.torch import save_file
    from test_streaming import mixtral

    model = mixtral()
    model.save_pretrained(tmp_path / "model")
    if is_stacked:
        save_file(model.state_dict(), tmp_path / "model" / "model.safetensors", {"format": "pt"})
    calibrate_language_model(
        tmp_path / "model", torch.randint(5, 100, (16, 32)), tmp_path / "stats.safetensors", min_side=16
    )
    mpo(
        "convert", tmp_path / "model", "-o", tmp_path / "x.mpo", "--matrix-ratio", 0.7, "--include", "*experts*",
        "--calibration", tmp_path / "stats.safetensors",
    )  # fmt: skip
    records = [
        record
        for record in MPOCheckpoint(tmp_path / "x.mpo").manifest.raw["tensors"]
        if "experts" in record["name"] and record.get("relative_error")
    ]
    assert records and all(record["metric_relative_error"] > 0 for record in records)
