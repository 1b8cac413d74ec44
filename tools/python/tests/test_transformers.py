"""transformers, PEFT and sentence-transformers load, train and save MPO checkpoints as they do other models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reference import file_object, sign
from test_models import converted
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

import mpo_checkpoint
from mpo_checkpoint import CheckpointError, CompactMPOWeight, MPOCheckpoint, MPOEmbedding, MPOLinear
from mpo_checkpoint.integrations.transformers import MPOConfig, config_text


def announced(written):
    """As ``mpo convert`` leaves a folder: the method in ``config.json``."""
    path = written.folder / "config.json"
    members = json.loads(path.read_text())
    path.write_text(json.dumps({"quantization_config": {"quant_method": "mpo", "format_version": "2.0"}, **members}))
    written.rewrite_manifest(lambda manifest: manifest.update(companions=[file_object(path)]))
    return written.folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=64, hidden_dropout_prob=0.0,
    )  # fmt: skip
    model = BertModel(config).eval()
    return model, announced(converted(model, tmp_path_factory.mktemp("bert") / "bert.mpo", gauge="compact"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=100, n_embd=64, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=1, pad_token_id=2
    )
    model = GPT2LMHeadModel(config).eval()
    return model, announced(converted(model, tmp_path_factory.mktemp("gpt2") / "gpt2.mpo", gauge="compact"))


IDS = torch.arange(5, 26).reshape(3, 7)


def hidden(model):
    with torch.no_grad():
        result = model.eval()(IDS)
    return result.last_hidden_state if "last_hidden_state" in result else result.logits


def test_an_auto_class_loads_the_folder_and_saves_it_again(bert, tmp_path):
    dense, folder = bert
    model = AutoModel.from_pretrained(folder)
    assert type(model) is BertModel and isinstance(model.embeddings.word_embeddings, MPOEmbedding)
    assert isinstance(model.encoder.layer[0].output.dense.weight, CompactMPOWeight)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.mpo_source.report.new and not model.mpo_source.report.restored
    torch.testing.assert_close(hidden(model), hidden(dense), atol=1e-5, rtol=1e-4)
    model.save_pretrained(tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {
        "config.json", "manifest.json", "tensors.safetensors"
    }  # fmt: skip
    MPOCheckpoint(tmp_path / "again").verify()
    torch.testing.assert_close(hidden(AutoModel.from_pretrained(tmp_path / "again")), hidden(model), atol=0, rtol=0)


def test_saving_again_into_a_folder_replaces_the_checkpoint_and_nothing_else(bert, tmp_path):
    model = AutoModel.from_pretrained(bert[1])
    (tmp_path / "optimizer.pt").write_bytes(b"1")
    for bias in (1.0, 2.0):
        torch.nn.init.constant_(model.pooler.dense.bias, bias)
        model.save_pretrained(tmp_path)
    assert (tmp_path / "optimizer.pt").exists()
    MPOCheckpoint(tmp_path).verify()
    assert AutoModel.from_pretrained(tmp_path).pooler.dense.bias[0] == 2


def test_a_head_is_new_and_saved(bert, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(bert[1], num_labels=3, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16 and model(IDS).logits.shape == (3, 3)
    assert model.mpo_source.report.new == ["classifier.weight", "classifier.bias"]
    assert model.half().dtype == torch.float16 and model.float().dtype == torch.float32
    model.save_pretrained(tmp_path / "head")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "head")
    assert again.config.num_labels == 3
    torch.testing.assert_close(again.classifier.weight.float(), model.classifier.weight.float())


def test_tied_embeddings_are_one_weight(gpt2, tmp_path):
    dense, folder = gpt2
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", device_map="cpu")
    assert model.lm_head.weight is model.transformer.wte.weight and model.config._attn_implementation == "eager"
    torch.testing.assert_close(hidden(model), hidden(dense), atol=1e-5, rtol=1e-4)
    model.tie_weights()
    options = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(IDS)}
    assert torch.equal(model.generate(IDS, **options), dense.generate(IDS, **options))
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    torch.testing.assert_close(hidden(loaded), hidden(model))
    loaded.save_pretrained(tmp_path / "again.mpo")
    torch.testing.assert_close(hidden(AutoModelForCausalLM.from_pretrained(tmp_path / "again.mpo")), hidden(model))


def test_what_is_trained_is_a_choice(bert):
    model = AutoModel.from_pretrained(bert[1], quantization_config=MPOConfig(trainable="auxiliary"))
    trained = model.mpo_source.report.trainable
    assert trained["auxiliary"] and not trained["central"] and not trained["matrices"]
    with pytest.raises(ValueError, match="trainable is 'cores'"):
        MPOConfig(trainable="cores")


def test_a_revision_of_a_hub_comes_from_its_cache(bert, tmp_path):
    commits = {"main": "a" * 40, "old": "b" * 40}
    for name, commit in commits.items():
        cache = tmp_path / "hub" / "models--some--model"
        shutil.copytree(bert[1], cache / "snapshots" / commit)
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / name).write_text(commit)
    (tmp_path / "hub" / "models--some--model" / "snapshots" / commits["main"] / "manifest.json").unlink()
    code = (
        "import sys, mpo_checkpoint; from transformers import AutoModel; "
        "print(AutoModel.from_pretrained('some/model', revision=sys.argv[1]).mpo_source.path)"
    )
    package = Path(mpo_checkpoint.__file__).parents[1]
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(package)}
    result = subprocess.run([sys.executable, "-c", code, "old"], env=environment, capture_output=True, text=True)
    assert commits["old"] in result.stdout, result.stderr


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="transformers calls what this torch does not have")
def test_compiled(bert):
    dense, folder = bert
    model = torch.compile(AutoModel.from_pretrained(folder), backend="eager")
    torch.testing.assert_close(hidden(model), hidden(dense), atol=1e-5, rtol=1e-4)


def test_the_trainer_trains_and_saves_checkpoints(gpt2, tmp_path):
    from transformers import Trainer, TrainingArguments

    model = AutoModelForCausalLM.from_pretrained(gpt2[1])
    before = hidden(model)
    arguments = TrainingArguments(
        str(tmp_path), max_steps=4, save_steps=2, learning_rate=1e-2, report_to=[], use_cpu=True, disable_tqdm=True,
        per_device_train_batch_size=3,
    )  # fmt: skip
    samples = [{"input_ids": row, "labels": row} for row in IDS]
    Trainer(model, arguments, train_dataset=samples).train()
    assert not torch.equal(hidden(model), before)
    MPOCheckpoint(tmp_path / "checkpoint-4").verify()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-4")
    torch.testing.assert_close(hidden(again), hidden(model), atol=1e-4, rtol=1e-3)


def test_parts_on_disk(gpt2, tmp_path):
    """With accelerate, as for a model that does not fit in memory."""
    pytest.importorskip("accelerate")
    places = {"transformer.wte": "cpu", "lm_head": "cpu", "transformer.wpe": "cpu", "transformer.ln_f": "cpu"}
    places |= {"transformer.h.0": "cpu", "transformer.h.1": "disk"}
    model = AutoModelForCausalLM.from_pretrained(gpt2[1], device_map=places, offload_folder=tmp_path)
    assert all(parameter.is_meta for parameter in model.transformer.h[1].parameters())
    torch.testing.assert_close(hidden(model), hidden(gpt2[0]), atol=1e-5, rtol=1e-4)


def test_experts_that_transformers_stacks_are_restored(tmp_path):
    config = MixtralConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, num_local_experts=2, max_position_embeddings=64, head_dim=16,
    )  # fmt: skip
    dense = MixtralForCausalLM(config).eval()
    dense.save_pretrained(tmp_path / "dense")
    from reference import write_checkpoint
    from safetensors.torch import load_file
    from test_models import CUTS

    tensors = load_file(tmp_path / "dense" / "model.safetensors")
    cuts = {name: CUTS[tuple(t.shape)] for name, t in tensors.items() if tuple(t.shape) in CUTS and "embed" not in name}
    companions = {"config.json": (tmp_path / "dense" / "config.json").read_bytes()}
    folder = announced(write_checkpoint(tmp_path / "m.mpo", tensors, cuts, companions=companions))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(model.model.layers[0].self_attn.q_proj, MPOLinear)
    expert = mpo_checkpoint.load_dense(folder)["model.layers.0.block_sparse_moe.experts.1.w2.weight"]
    torch.testing.assert_close(model.model.layers[0].mlp.experts.down_proj[1], torch.from_numpy(expert))
    with pytest.raises(CheckpointError, match="merged"):
        model.save_pretrained(tmp_path / "again")


def test_shards_and_packed_entries(tmp_path):
    mpo = os.environ.get("MPO")
    if mpo is None:
        pytest.skip("set MPO to the built tool")
    config = LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    dense = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    dense.save_pretrained(tmp_path / "dense", max_shard_size="100KB")
    commands = [
        ["convert", "dense", "-o", "x.mpo", "--ratio", "0.8", "--pack", "--central", "int8"],
        ["restore", "x.mpo", "-o", "restored"],
    ]
    for command in commands:
        subprocess.run([mpo, *command], cwd=tmp_path, check=True, capture_output=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "x.mpo", dtype=torch.float32)
    restored = AutoModelForCausalLM.from_pretrained(tmp_path / "restored", dtype=torch.float32)
    assert "quantization_config" not in json.loads((tmp_path / "restored" / "config.json").read_text())
    torch.testing.assert_close(hidden(model), hidden(restored), atol=2e-2, rtol=2e-2)
    model.save_pretrained(tmp_path / "again.mpo")
    subprocess.run([mpo, "verify", "again.mpo"], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run([mpo, "restore", "again.mpo", "-o", "r2"], cwd=tmp_path, check=True, capture_output=True)
    assert "quantization_config" not in json.loads((tmp_path / "r2" / "config.json").read_text())


def test_the_configuration_begins_with_the_method(bert):
    text = config_text(AutoModel.from_pretrained(bert[1]).config)
    assert list(json.loads(text))[0] == "quantization_config" and "transformers_weights" not in text


# What is refused


def in_python(code, folder):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder)],
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, capture_output=True, text=True,
    )  # fmt: skip


def test_without_the_package_nothing_is_loaded(bert):
    code = "import sys; from transformers import AutoModel; AutoModel.from_pretrained(sys.argv[1])"
    result = in_python(code, bert[1])
    assert result.returncode and "OSError" in result.stderr and "model.safetensors" in result.stderr


@pytest.fixture
def without_the_package(tmp_path):
    """Runs Python where every installed package can be imported but mpo_checkpoint; its modules are cached in a new folder."""
    import site

    packages = tmp_path / "packages"
    packages.mkdir()
    for folder in filter(Path.is_dir, map(Path, site.getsitepackages())):
        for entry in folder.iterdir():
            if "mpo_checkpoint" not in entry.name and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    environment = os.environ | {"PYTHONPATH": str(packages), "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}

    def run(code, *arguments):
        command = [sys.executable, "-S", "-W", "ignore", "-c", code, *map(str, arguments)]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

    return run


@pytest.fixture(scope="module")
def with_code(bert, tmp_path_factory):
    """A dense folder, and one that ``mpo convert --remote-code`` wrote of it."""
    if "MPO" not in os.environ:
        pytest.skip("set MPO to the built tool")
    folder = tmp_path_factory.mktemp("code")
    bert[0].save_pretrained(folder / "dense")
    for name, options in [("x.mpo", ["--remote-code"]), ("plain.mpo", [])]:
        command = [os.environ["MPO"], "convert", "dense", "-o", name, "--ratio", "0.6", *options]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


LOAD = "import sys, torch\nfrom transformers import AutoModel\n"


def test_a_folder_with_its_code_needs_no_package(with_code, without_the_package, tmp_path):
    code = LOAD + (
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()\n"
        "ids = torch.arange(5, 26).reshape(3, 7)\n"
        "with torch.no_grad(): torch.save(model(ids).last_hidden_state, 'hidden.pt')\n"
        "model.save_pretrained('again.mpo')\n"
        "again = AutoModel.from_pretrained('again.mpo', trust_remote_code=True).eval()\n"
        "with torch.no_grad(): assert torch.equal(again(ids).last_hidden_state, torch.load('hidden.pt'))\n"
        "print(sys.modules['mpo_checkpoint'].__spec__.loader, type(model.encoder.layer[0].output.dense).__name__)\n"
    )
    result = without_the_package(code, with_code / "x.mpo")
    assert "PackageSources" in result.stdout and "MPOLinear" in result.stdout, result.stderr
    expected = hidden(AutoModel.from_pretrained(with_code / "plain.mpo"))
    torch.testing.assert_close(torch.load(tmp_path / "hidden.pt"), expected, atol=1e-6, rtol=1e-5)
    assert (tmp_path / "again.mpo" / "mpo_remote_code.py").is_file()
    subprocess.run([os.environ["MPO"], "verify", tmp_path / "again.mpo"], check=True, capture_output=True)
    subprocess.run([os.environ["MPO"], "restore", tmp_path / "again.mpo", "-o", tmp_path / "r"], check=True)
    assert "auto_map" not in json.loads((tmp_path / "r" / "config.json").read_text())


def test_an_installed_package_takes_precedence_over_the_code_in_a_folder(with_code):
    code = LOAD + (
        "AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "import mpo_checkpoint; print(mpo_checkpoint.__file__)\n"
    )
    root = Path(mpo_checkpoint.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", code, with_code / "x.mpo"], env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.stdout.strip() == mpo_checkpoint.__file__, result.stderr


@pytest.mark.parametrize("name", ["x.mpo", "plain.mpo"])
def test_code_runs_only_if_it_is_trusted(with_code, without_the_package, name):
    result = without_the_package(LOAD + "AutoModel.from_pretrained(sys.argv[1])", with_code / name)
    assert result.returncode and "OSError" in result.stderr and "model.safetensors" in result.stderr


def test_code_without_sources_names_the_package(with_code, without_the_package, tmp_path):
    shutil.copytree(with_code / "x.mpo", tmp_path / "x.mpo")
    template = Path(__file__).parents[1] / "remote_code.py"
    shutil.copyfile(template, tmp_path / "x.mpo" / "mpo_remote_code.py")
    result = without_the_package(LOAD + "AutoModel.from_pretrained('x.mpo', trust_remote_code=True)")
    assert result.returncode and "convert the model again with --remote-code" in result.stderr


def test_importing_the_package_imports_no_other():
    code = "import sys, mpo_checkpoint; print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    root = Path(mpo_checkpoint.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_another_architecture_is_named(bert, gpt2):
    config = GPT2Config(vocab_size=100, n_embd=96, n_layer=2, n_head=4)
    config.quantization_config = {"quant_method": "mpo"}
    with pytest.raises(CheckpointError, match="does not fit the model: wte.weight is|transformer.wte.weight"):
        AutoModelForCausalLM.from_pretrained(gpt2[1], config=config)
    config = GPT2Config(vocab_size=100, n_embd=64, n_layer=1, n_head=4)
    config.quantization_config = {"quant_method": "mpo"}
    with pytest.raises(CheckpointError, match="other architecture|another architecture"):
        AutoModel.from_pretrained(bert[1], config=config)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json"),
        (lambda folder: (folder / "tensors.safetensors").unlink(), "tensors.safetensors"),
        (lambda folder: (folder / "tensors.safetensors").write_bytes(b"1234567890"), "tensors.safetensors"),
    ],
)
def test_what_is_missing_is_named(bert, tmp_path, damage, message):
    shutil.copytree(bert[1], tmp_path / "x.mpo")
    damage(tmp_path / "x.mpo")
    with pytest.raises((CheckpointError, OSError), match=message):
        AutoModel.from_pretrained(tmp_path / "x.mpo")


def test_another_version_is_named(bert, tmp_path):
    shutil.copytree(bert[1], tmp_path / "x.mpo")
    manifest = json.loads((tmp_path / "x.mpo" / "manifest.json").read_text()) | {"version": "3.0"}
    sign(tmp_path / "x.mpo" / "manifest.json", manifest)
    with pytest.raises(CheckpointError, match="version 3.0"):
        AutoModel.from_pretrained(tmp_path / "x.mpo")


def test_a_dense_model_is_not_converted_by_loading_it(bert, tmp_path):
    bert[0].save_pretrained(tmp_path / "dense")
    with pytest.raises(ValueError, match="mpo convert"):
        AutoModel.from_pretrained(tmp_path / "dense", quantization_config=MPOConfig())


# PEFT and sentence-transformers


def test_lora_on_layers_made_of_cores(gpt2, tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(gpt2[1]),
        peft.LoraConfig(r=4, target_modules=["c_attn", "c_proj"], task_type="CAUSAL_LM"),
    )
    before = model(IDS, labels=IDS).loss.item()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(5):
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    assert model(IDS, labels=IDS).loss.item() < 0.95 * before
    model.save_pretrained(tmp_path / "adapter")
    expected = hidden(model)
    loaded = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(gpt2[1]), tmp_path / "adapter").eval()
    torch.testing.assert_close(hidden(loaded), expected)
    torch.testing.assert_close(hidden(AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")), expected)
    with loaded.disable_adapter():
        torch.testing.assert_close(hidden(loaded), hidden(gpt2[0]), atol=1e-5, rtol=1e-4)


def test_all_linear_layers_except_the_head_are_targets(gpt2, bert):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(gpt2[1]), config)
    layers = {f"transformer.h.{k}.{n}" for k in (0, 1) for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}
    assert model.peft_config["default"].target_modules == layers
    tuned = {name for name, module in model.base_model.model.named_modules() if type(module).__name__ == "LoraMPOLinear"}
    assert tuned == layers
    model.add_adapter("second", peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert model.peft_config["second"].target_modules == layers
    dense = peft.get_peft_model(BertModel(bert[0].config), peft.LoraConfig(r=2, target_modules="all-linear"))
    half = peft.get_peft_model(AutoModel.from_pretrained(bert[1]), peft.LoraConfig(r=2, target_modules="all-linear"))
    assert half.peft_config["default"].target_modules == dense.peft_config["default"].target_modules


def test_lora_is_merged_into_a_term_and_saved(gpt2, tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(gpt2[1]),
        peft.LoraConfig(r=4, target_modules=["c_attn", "c_proj"], init_lora_weights=False),
    )
    expected = hidden(model)
    model.merge_adapter()
    torch.testing.assert_close(hidden(model), expected, atol=1e-4, rtol=1e-3)
    model.unmerge_adapter()
    torch.testing.assert_close(hidden(model), expected, atol=0, rtol=0)
    merged = model.merge_and_unload()
    torch.testing.assert_close(hidden(merged), expected, atol=1e-4, rtol=1e-3)
    merged.save_pretrained(tmp_path / "merged.mpo")
    MPOCheckpoint(tmp_path / "merged.mpo").verify()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged.mpo")
    torch.testing.assert_close(hidden(again), expected, atol=1e-4, rtol=1e-3)
    if "MPO" in os.environ:
        subprocess.run([os.environ["MPO"], "verify", tmp_path / "merged.mpo"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def sentences(bert, tmp_path_factory):
    """A converted sentence-embedding folder."""
    from transformers import BertTokenizerFast

    folder = tmp_path_factory.mktemp("sentences") / "s.mpo"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{k}" for k in range(95))]
    shutil.copytree(bert[1], folder)
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_sentence_transformers_encodes_with_the_folder(sentences, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(sentences), device="cpu")
    assert isinstance(model[0].auto_model.encoder.layer[0].output.dense, MPOLinear)
    vectors = model.encode(["w1 w2 w3", "w4"])
    assert vectors.shape == (2, 64)
    model.save_pretrained(str(tmp_path / "again"))
    MPOCheckpoint(tmp_path / "again").verify()
    torch.testing.assert_close(library.SentenceTransformer(str(tmp_path / "again")).encode(["w1 w2 w3", "w4"]), vectors)


def test_a_pipeline_takes_the_folder(sentences):
    from transformers import pipeline

    features = pipeline("feature-extraction", model=str(sentences), device="cpu")("w1 w2")
    assert len(features[0][0]) == 64


def test_an_adapter_of_mpo_corrects_a_quantised_model_anywhere(tmp_path):
    peft = pytest.importorskip("peft")
    if "MPO" not in os.environ:
        pytest.skip("set MPO to the built tool")
    config = LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    dense = LlamaForCausalLM(config).eval()
    dense.save_pretrained(tmp_path / "dense")
    expected = hidden(dense)
    with torch.no_grad():
        for name, weight in dense.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                step = weight.abs().max() / 3
                weight.copy_((weight / step).round() * step)
    dense.save_pretrained(tmp_path / "quantised")
    arguments = ["adapt", "quantised", "--against", "dense", "-r", "100", "-o", "adapter"]
    package = Path(mpo_checkpoint.__file__).parents[1]
    subprocess.run(
        [sys.executable, "-m", "mpo_checkpoint", *arguments], cwd=tmp_path, check=True, capture_output=True,
        env=os.environ | {"PYTHONPATH": str(package)},
    )  # fmt: skip
    before = (hidden(dense) - expected).norm()
    corrected = peft.PeftModel.from_pretrained(dense, tmp_path / "adapter")
    assert (hidden(corrected) - expected).norm() < 1e-3 * before, "the ranks are full: 64, of down_proj too"
    assert set(corrected.peft_config["default"].target_modules) >= {"lm_head", "model.layers.1.mlp.down_proj"}


def test_an_adapter_of_mpo_corrects_layers_that_keep_their_weight_transposed(tmp_path):
    peft = pytest.importorskip("peft")
    if "MPO" not in os.environ:
        pytest.skip("set MPO to the built tool")
    dense = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_embd=64, n_layer=1, n_head=4, n_positions=64)).eval()
    dense.save_pretrained(tmp_path / "dense")
    expected = hidden(dense)
    with torch.no_grad():
        for name, weight in dense.named_parameters():
            if weight.ndim == 2 and ".h." in name:
                weight.add_(0.05 * torch.randn_like(weight))
    dense.save_pretrained(tmp_path / "worse")
    command = [os.environ["MPO"], "adapt", "worse", "--against", "dense", "-r", "64", "-o", "adapter"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    before = (hidden(dense) - expected).norm()
    corrected = peft.PeftModel.from_pretrained(dense, tmp_path / "adapter")
    assert len(corrected.peft_config["default"].target_modules) == 4
    assert (hidden(corrected) - expected).norm() < 1e-3 * before
