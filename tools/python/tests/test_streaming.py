"""Statistics of language models, block by block."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from mpo_checkpoint import Statistics
from mpo_checkpoint.__main__ import main
from mpo_checkpoint.boundaries import Boundaries
from mpo_checkpoint.huggingface import calibrate_language_model, task_of
from mpo_checkpoint.names import stored_names
from mpo_checkpoint.objectives import Objective
from mpo_checkpoint.pieces import text_pieces
from mpo_checkpoint.trunk import NoTrunk, Trunk


def llama(**options):
    from transformers import LlamaConfig, LlamaForCausalLM

    options = {"tie_word_embeddings": True} | options
    config = LlamaConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=96, **options,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=100, n_embd=64, n_layer=2, n_head=4, n_positions=64))


def gemma2():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=100, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        intermediate_size=96, sliding_window=4,
    )  # fmt: skip
    return Gemma2ForCausalLM(config)


def mixtral(**options):
    from transformers import MixtralConfig, MixtralForCausalLM

    options = {"num_experts_per_tok": 2} | options
    config = MixtralConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=96, num_local_experts=4, **options,
    )  # fmt: skip
    return MixtralForCausalLM(config)


def qwen_moe():
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    config = Qwen2MoeConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=96, moe_intermediate_size=48, shared_expert_intermediate_size=96, num_experts=4,
        num_experts_per_tok=2,
    )  # fmt: skip
    return Qwen2MoeForCausalLM(config)


@pytest.fixture
def folder(tmp_path):
    def save(model):
        model.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return save


@pytest.fixture
def pieces():
    return torch.randint(5, 100, (6, 16))


def tokenizer_into(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", *(f"w{n}" for n in range(98))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)


@pytest.mark.parametrize("model", [llama, lambda: llama(tie_word_embeddings=False), gpt2, gemma2])
@pytest.mark.parametrize("objective", [Objective(), Objective("fisher", 2), Objective("projections", 3, seed=1)])
def test_a_model_in_blocks_has_the_statistics_of_the_whole(folder, pieces, tmp_path, monkeypatch, model, objective):
    path = folder(model())
    notices = []
    calibrate_language_model(
        path, pieces, tmp_path / "blocks", objective=objective, min_side=16, notice=notices.append, dtype="float64"
    )
    assert not notices

    def no_trunk(*_):
        raise NoTrunk("of the test")

    monkeypatch.setattr("mpo_checkpoint.huggingface.Trunk", no_trunk)
    calibrate_language_model(
        path, pieces, tmp_path / "whole", objective=objective, min_side=16, notice=notices.append, dtype="float64"
    )
    assert "of the test" in notices[0] and "all of it is loaded" in notices[0]
    blocks, whole = Statistics.load(tmp_path / "blocks"), Statistics.load(tmp_path / "whole")
    assert blocks.tensors.keys() == whole.tensors.keys() and blocks.tensors
    assert blocks.input_rows == whole.input_rows
    assert (blocks.samples, blocks.tokens, blocks.output_ridge) == (6, 96, 0.1)
    for name, value in whole.tensors.items():
        np.testing.assert_allclose(blocks.tensors[name], value, rtol=1e-3, atol=1e-4 * np.abs(value).max(), err_msg=name)


def routed_moments(model, weights, pieces):
    """The moments of each expert's matrices, from the definition and the checkpoint's own matrices."""
    calls = []
    for layer in model.model.layers:
        layer.mlp.experts.register_forward_hook(lambda module, arguments, result: calls.append((arguments, result)))
    logits = model(input_ids=pieces).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), pieces[:, 1:].flatten(), reduction="sum")
    gradients = torch.autograd.grad(loss, [result for _, result in calls])
    moments = {}
    for index, ((arguments, _), gradient) in enumerate(zip(calls, gradients)):
        hidden, chosen, chances = (argument.detach() for argument in arguments)
        for expert in range(4):
            token, place = torch.where(chosen == expert)
            gate, up, down = (
                next(name for name in weights if f"layers.{index}." in name and f".experts.{expert}.{leaf}" in name)
                for leaf in (("w1", "w3", "w2") if "block_sparse_moe" in str(weights) else ("gate_", "up_", "down_"))
            )
            x = hidden[token]
            left, right = (torch.nn.functional.linear(x, weights[name]).requires_grad_() for name in (gate, up))
            between = torch.nn.functional.silu(left) * right
            written = torch.nn.functional.linear(between, weights[down])
            g = (gradient[token] * chances[token, place, None]).detach()
            inner = torch.autograd.grad(written, (left, right), g)
            for name, read, back in ((gate, x, inner[0]), (up, x, inner[1]), (down, between.detach(), g)):
                moments[name] = back.T @ back / len(pieces), read.T @ read / len(read)
    return moments


@pytest.mark.parametrize("model", [mixtral, qwen_moe])
def test_each_expert_has_the_moments_of_the_positions_routed_to_it(folder, pieces, tmp_path, monkeypatch, model):
    from safetensors.torch import load_file

    model = model().eval()
    path, notices = folder(model), []
    calibrate_language_model(path, pieces, tmp_path / "stats", min_side=16, notice=notices.append, batch_size=2)
    assert not notices
    statistics = Statistics.load(tmp_path / "stats")
    names, wanted = set(statistics.matrices), routed_moments(model, load_file(path / "model.safetensors"), pieces)
    assert len(wanted) == 2 * 4 * 3 and set(wanted) < names and names <= stored_names(path)
    for name, sides in wanted.items():
        for side, value in zip(("row", "column"), sides):
            np.testing.assert_allclose(
                statistics.tensors[f"{name}.{side}_gram"], value, rtol=1e-3, atol=1e-4 * value.abs().max(), err_msg=name
            )

    def no_trunk(*_):
        raise NoTrunk("of the test")

    monkeypatch.setattr("mpo_checkpoint.huggingface.Trunk", no_trunk)
    calibrate_language_model(path, pieces, tmp_path / "whole", min_side=16, notice=notices.append)
    assert "all of it is loaded" in notices[0] and "experts" in notices[1] and "Frobenius norm" in notices[1]
    whole = Statistics.load(tmp_path / "whole")
    assert set(whole.matrices) == names - set(wanted)
    for name, value in whole.tensors.items():
        np.testing.assert_allclose(statistics.tensors[name], value, rtol=1e-3, atol=1e-4 * value.max(), err_msg=name)


def test_experts_stacked_in_the_checkpoint_are_named_by_number(folder, pieces, tmp_path):
    from safetensors.torch import save_file

    model = mixtral()
    path = folder(model)
    calibrate_language_model(path, pieces, tmp_path / "single", min_side=16)
    save_file(model.state_dict(), path / "model.safetensors", {"format": "pt"})
    calibrate_language_model(path, pieces, tmp_path / "stacked", min_side=16)
    single, stacked = (Statistics.load(tmp_path / name).tensors for name in ("single", "stacked"))
    one, other = "model.layers.1.block_sparse_moe.experts.2", "model.layers.1.mlp.experts"
    np.testing.assert_array_equal(stacked[f"{other}.down_proj.2.row_gram"], single[f"{one}.w2.weight.row_gram"])
    np.testing.assert_array_equal(stacked[f"{other}.gate_up_proj.2.column_gram"], single[f"{one}.w1.weight.column_gram"])
    both = stacked[f"{other}.gate_up_proj.2.row_gram"]
    np.testing.assert_allclose(both[:96, :96], single[f"{one}.w1.weight.row_gram"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(both[96:, 96:], single[f"{one}.w3.weight.row_gram"], rtol=1e-3, atol=1e-6)


def test_experts_without_positions_are_left_out(folder, pieces, tmp_path):
    model = mixtral(num_experts_per_tok=1)
    with torch.no_grad():
        for layer in model.model.layers:  # the first two experts have opposite chances, one of them above that of the others
            layer.mlp.gate.weight[1] = -layer.mlp.gate.weight[0]
            layer.mlp.gate.weight[2:] = 0
    statistics = calibrate_language_model(folder(model), pieces, tmp_path / "stats", min_side=16)
    places = [f"model.layers.{index}.block_sparse_moe.experts.{expert}" for index in (0, 1) for expert in (2, 3)]
    assert sorted(statistics.skipped) == sorted(f"{place}.{leaf}.weight" for place in places for leaf in ("w1", "w2", "w3"))
    assert len(Statistics.load(tmp_path / "stats").matrices) == 2 * (4 + 2 * 3)


def test_the_moments_are_those_of_the_definition(folder, pieces, tmp_path):
    model = llama().eval()
    calibrate_language_model(folder(model), pieces, tmp_path / "stats", min_side=16)
    statistics = Statistics.load(tmp_path / "stats")
    layer = model.model.layers[1].mlp.gate_proj
    inputs, gradients = [], []
    layer.register_forward_hook(
        lambda module, arguments, result: (inputs.append(arguments[0]), result.register_hook(gradients.append), None)[-1]
    )
    logits = model(input_ids=pieces).logits
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), pieces[:, 1:].flatten(), reduction="sum").backward()
    x, g = inputs[0].detach().flatten(0, 1), gradients[0].flatten(0, 1)
    name = "model.layers.1.mlp.gate_proj.weight"
    np.testing.assert_allclose(statistics.tensors[f"{name}.column_gram"], x.T @ x / 96, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(statistics.tensors[f"{name}.row_gram"], g.T @ g / 6, rtol=1e-3, atol=1e-6)


def test_sides_that_are_the_same_are_stored_once(folder, pieces, tmp_path):
    from safetensors import safe_open

    calibrate_language_model(folder(llama()), pieces, tmp_path / "stats", min_side=16)
    with safe_open(tmp_path / "stats", "np") as file:
        stored, same = set(file.keys()), json.loads(file.metadata()["same"])
    assert len(stored) == 3 * (7 + 4) and len(same) == 3 * 3
    layer = "model.layers.0.self_attn"
    assert same[f"{layer}.k_proj.weight.column_gram"] == same[f"{layer}.v_proj.weight.column_gram"]
    statistics = Statistics.load(tmp_path / "stats")
    assert len(statistics.matrices) == 21
    gram = statistics.tensors[f"{layer}.k_proj.weight.column_gram"]
    np.testing.assert_array_equal(gram, statistics.tensors[f"{layer}.q_proj.weight.column_gram"])


def test_the_same_seed_gives_the_same_bytes_whatever_the_memory(folder, pieces, tmp_path, monkeypatch):
    path = folder(llama())
    for name in ("one", "two"):
        calibrate_language_model(path, pieces, tmp_path / name, objective=Objective("fisher", 1, 7), min_side=16)
        monkeypatch.setattr("mpo_checkpoint.boundaries.Boundaries.__init__.__defaults__", (0,))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    calibrate_language_model(path, pieces, tmp_path / "three", objective=Objective("fisher", 1, 8), min_side=16)
    assert (tmp_path / "one").read_bytes() != (tmp_path / "three").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "one", "three", "two"]


def test_parts_merge_to_the_whole(folder, tmp_path, capsys):
    path = folder(llama())
    tokenizer_into(path)
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"w{n % 90}" for n in range(200)))
    command = ["calibrate", str(path), str(text), "--samples", "7", "--max-length", "16", "--objective", "fisher", "-o"]
    assert main([*command, str(tmp_path / "all")]) == 0
    for part in (1, 2, 3):
        assert main([*command, str(tmp_path / f"{part}"), "--part", f"{part}/3"]) == 0
    parts = [str(tmp_path / f"{part}") for part in (1, 2, 3)]
    assert main(["merge-statistics", *parts, "-o", str(tmp_path / "merged")]) == 0
    assert "3 parts, 7 samples, 112 tokens" in capsys.readouterr().out
    whole, merged = Statistics.load(tmp_path / "all"), Statistics.load(tmp_path / "merged")
    assert (merged.samples, merged.tokens, merged.output_ridge) == (7, 112, 0.1)
    assert merged.tensors.keys() == whole.tensors.keys()
    for name, value in whole.tensors.items():
        np.testing.assert_allclose(merged.tensors[name], value, rtol=1e-3, atol=1e-5 * np.abs(value).max())
    assert main(["merge-statistics", parts[0], str(path / "model.safetensors"), "-o", str(tmp_path / "bad")]) == 1
    assert "not a statistics file" in capsys.readouterr().err and not (tmp_path / "bad").exists()


def test_a_run_that_is_killed_repeatedly_writes_the_same_bytes(folder, pieces, tmp_path):
    path, output = folder(llama()), tmp_path / "stats"
    torch.save(pieces, tmp_path / "pieces")
    script = f"""
import os, signal, sys, torch
from mpo_checkpoint.huggingface import calibrate_language_model
from mpo_checkpoint.objectives import Objective
torch.set_num_threads(1)  # so that a child process can compute
options = dict(objective=Objective("fisher", 2), min_side=16, batch_size=2)
pieces = torch.load({str(tmp_path / "pieces")!r})
calibrate_language_model({str(path)!r}, pieces, {str(tmp_path / "whole")!r}, **options)
while True:
    calls = 0
    def progress(done, total):
        global calls
        calls += 1
        if calls == 1:
            print(done, flush=True)
        if calls == 6:  # a block has three batches: in the middle of the second one
            os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if child == 0:
        calibrate_language_model({str(path)!r}, pieces, {str(output)!r}, progress=progress, **options)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    assert not os.path.exists({str(output)!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # Three blocks forward, six samples' objective, three blocks backward; two are finished in a run, or one and the objective.
    starts = [int(line) for line in done.stdout.split()]
    assert starts == sorted(set(starts)) and len(starts) >= 4 and starts[0] == 0, starts
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()
    assert {entry.name for entry in tmp_path.iterdir()} == {"model", "pieces", "stats", "whole"}


def test_only_the_same_command_continues_an_unfinished_run(folder, pieces, tmp_path):
    path, output = folder(llama()), tmp_path / "stats"
    unfinished = tmp_path / "stats.unfinished"

    def interrupted(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    def calibrate(pieces=pieces, **options):
        return calibrate_language_model(path, pieces, output, **({"min_side": 16, "batch_size": 2} | options))

    with pytest.raises(KeyboardInterrupt):
        calibrate(progress=interrupted)
    for words, options in (
        ("text was", {"pieces": pieces.flip(0)}),
        ("objective was", {"objective": Objective("fisher")}),
        ("dtype, selection of matrices were", {"dtype": "float64", "min_side": 20}),
    ):
        with pytest.raises(ValueError, match=words + " different.*--restart"):
            calibrate(**options)
    config = (path / "config.json").read_text()
    (path / "config.json").write_text(config + " ")
    with pytest.raises(ValueError, match="model was different"):
        calibrate()
    (path / "config.json").write_text(config)
    with open(unfinished / "lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run is writing it"):
            calibrate()
    assert unfinished.exists() and not output.exists()

    notices = []
    calibrate(notice=notices.append)
    assert "continues the run in" in notices[0] and output.exists() and not unfinished.exists()
    with pytest.raises(KeyboardInterrupt):
        calibrate(progress=interrupted)
    calibrate(dtype="float64", is_restarted=True, notice=notices.append)
    assert len(notices) == 1 and not unfinished.exists()


def test_a_mixture_of_experts_continues_after_an_interruption(folder, pieces, tmp_path):
    path = folder(mixtral())

    def interrupted(done, total):
        if done > 3 * total // 4:
            raise KeyboardInterrupt

    calibrate_language_model(path, pieces, tmp_path / "whole", min_side=16, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        calibrate_language_model(path, pieces, tmp_path / "stats", min_side=16, batch_size=2, progress=interrupted)
    notices = []
    calibrate_language_model(path, pieces, tmp_path / "stats", min_side=16, batch_size=2, notice=notices.append)
    assert "continues the run in" in notices[0] and (tmp_path / "stats").read_bytes() == (tmp_path / "whole").read_bytes()


def test_boundaries_in_a_file_are_those_in_memory(tmp_path):
    values = torch.randn(3, 2, 4)
    for memory in (0, 1 << 20):
        boundaries = Boundaries(3, values[0].shape, tmp_path / f"{memory}", memory)
        for place in (2, 0, 1):
            boundaries[place] = values[place]
        assert all(torch.equal(boundaries[place], values[place]) for place in range(3))


def test_only_one_block_has_weights_at_a_time(folder):
    from transformers import AutoModelForCausalLM

    trunk = Trunk(folder(llama()), AutoModelForCausalLM)

    def real():
        return {name.split(".")[2] for name, p in trunk.model.named_parameters() if not p.is_meta and "layers" in name}

    assert trunk.path == "model.layers" and not real()
    with trunk.loaded(1):
        assert real() == {"1"}
    with trunk.loaded(None):
        assert not real() and trunk.model.lm_head.weight is trunk.model.model.embed_tokens.weight
    assert all(p.is_meta for p in trunk.model.parameters())


def test_the_embedding_is_measured_when_it_is_asked_for(folder, pieces, tmp_path):
    notices = []
    calibrate_language_model(folder(llama()), pieces, tmp_path / "stats", include=["*embed*"], notice=notices.append)
    assert "outside its blocks" in notices[0]
    assert Statistics.load(tmp_path / "stats").matrices == ["model.embed_tokens.weight"]


def test_pieces_go_across_lines_and_over_the_whole_text(folder, tmp_path):
    path = folder(llama())
    tokenizer_into(path)
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"w{n}" for n in range(95)))
    pieces = text_pieces(path, text, 10, 3)
    assert pieces.tolist() == [[start + n + 2 for n in range(10)] for start in (0, 30, 60)]
    assert len(text_pieces(path, text, 10)) == 9


def test_the_command_line_follows_the_architecture(folder, tmp_path, capsys):
    path = folder(llama())
    assert task_of(path) == "causal-lm"
    text, stats = tmp_path / "text.txt", tmp_path / "stats.safetensors"
    text.write_text("\n".join(f"w{n} w{2 * n}" for n in range(40)))
    command = ["calibrate", str(path), str(text), "-o", str(stats), "--samples", "4", "--max-length", "16"]

    def refused(*words, more=()):
        assert main([*command, *more]) == 1
        message = capsys.readouterr().err
        assert all(word in message for word in words), message
        assert not stats.exists() and {p.name for p in tmp_path.iterdir()} == {"model", "text.txt"}

    refused("has no tokenizer", "tokenizer.json")
    tokenizer_into(path)
    refused("80 tokens", "5 pieces of 16", "--samples 5", more=["--samples", "9"])
    refused("a longer text", "smaller --max-length", more=["--max-length", "512"])
    refused("--projections has no effect", more=["--projections", "3"])
    refused("--of hidden", more=["--of", "hidden"])
    refused("no matrix", more=["--include", "none"])
    refused("needs --task causal-lm", more=["--task", "features", "--objective", "loss"])
    assert main([*command, "--min-side", "16"]) == 0
    out, err = capsys.readouterr()
    assert "21 matrices, 4 samples, 64 tokens (0.7 per dimension of the largest side)" in out
    assert "0.7 tokens per dimension" in err and "more samples" in err
    config = (path / "config.json").read_bytes()
    assert Statistics.load(stats).config_sha256 == hashlib.sha256(config).hexdigest()
    assert "the loss of the text's next tokens" in Statistics.load(stats).description
