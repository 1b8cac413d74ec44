"""Mistakes at the command line: one line that says what to do, exit status 1, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from mpo_checkpoint import Statistics, StatisticsError
from mpo_checkpoint.__main__ import main
from safetensors.torch import load_file, save_file
from test_streaming import llama, tokenizer_into

SHARD = "model-00002-of-00002.safetensors"


def delete(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def configure(**members):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | members))

    return change


def with_nan(folder):
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if "layers.1.mlp.up" in name:
                tensor[0, 0] = torch.nan
        save_file(tensors, path, {"format": "pt"})


BAD_FOLDERS = {
    "an MPO checkpoint": (write("manifest.json", "{}"), "is an MPO checkpoint, and statistics are of dense models; give the folder"),
    "no configuration": (delete("config.json"), "is not a model folder: it has no config.json"),
    "a configuration that is not JSON": (write("config.json", "{"), "config.json: is not JSON; copy it again"),
    "a configuration that is a list": (write("config.json", "[]"), "config.json: is not a JSON object; copy it again"),
    "an unknown architecture": (configure(model_type="nosuch"), "transformers can't load the model"),
    "no tokenizer": (delete("tokenizer.json", "tokenizer_config.json"), "copy the tokenizer's files"),
    "a broken tokenizer": (write("tokenizer.json", "{"), "copy the tokenizer's files"),
    "another model's tokenizer": (configure(vocab_size=20), "copy the tokenizer of this model"),
    "too few positions": (configure(max_position_embeddings=8), "a --max-length of at most 8"),
    "no weights": (
        delete("model.safetensors.index.json", "model-00001-of-00002.safetensors", SHARD),
        "has no weights; put the model's",
    ),
    "a missing shard": (delete(SHARD), f"the file {SHARD} is missing"),
    "a shard cut off": (lambda folder: os.truncate(folder / SHARD, 5000), f"{SHARD}: is damaged or incomplete"),
    "an index that is not JSON": (write("model.safetensors.index.json", "{"), "index.json: is not JSON; copy it again"),
    "an index without files": (write("model.safetensors.index.json", "{}"), "has no valid 'weight_map'"),
    "weights of another shape": (configure(intermediate_size=80), "config.json belongs to them (You"),
    "weights that are NaN": (with_nan, "NaN or infinite; check the model"),
}
BAD_TEXTS = {
    "none": (None, "can't be read (No such file or directory); give a text file"),
    "a folder": ("folder", "can't be read (Is a directory); give a text file"),
    "empty": (b"", "is empty; give a file with text"),
    "blank": (b" \n\n", "is empty; give a file with text"),
    "no UTF-8": (b"w1 w2 \xff\xfe", "is not UTF-8 text (byte 6 is 0xff); convert it"),
}
BAD_OPTIONS = {
    "too few pieces": (["--samples", "100"], "has 80 tokens, enough for 5 pieces of 16 tokens, but 100 are needed"),
    "no piece": (["--max-length", "2000"], "give a longer text, a smaller --max-length"),
    "an unknown task": (["--task", "nosuch"], "unknown task 'nosuch'; choose one of features"),
    "an unknown device": (["--device", "nosuch"], "can't compute on the device 'nosuch'; use cpu"),
    "no matrix": (["--min-side", "1000"], "see --include, --exclude and --min-side"),
}


@pytest.fixture
def folder(tmp_path):
    llama().save_pretrained(tmp_path / "model", max_shard_size="300KB")
    tokenizer_into(tmp_path / "model")
    assert (tmp_path / "model" / SHARD).exists()
    (tmp_path / "text.txt").write_text("\n".join(f"w{n} w{2 * n}" for n in range(40)))
    return tmp_path / "model"


@pytest.fixture
def refused(folder, tmp_path, capsys):
    def check(message, *more, output="stats"):
        before = sorted(tmp_path.rglob("*"))
        text = str(tmp_path / "text.txt")
        command = ["calibrate", str(folder), text, "-o", str(tmp_path / output), "--samples", "4", "--max-length", "16"]
        assert main([*command, "--min-side", "16", *more]) == 1
        errors = capsys.readouterr().err
        assert errors.splitlines()[-1].startswith("mpo_checkpoint: ") and message in errors.splitlines()[-1], errors
        assert sorted(tmp_path.rglob("*")) == before

    return check


@pytest.mark.parametrize(("damage", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_an_unusable_folder_is_refused(folder, refused, damage, message):
    damage(folder)
    refused(message)


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS.values(), ids=BAD_TEXTS)
@pytest.mark.parametrize("task", ["causal-lm", "features"])
def test_an_unusable_text_is_refused(folder, tmp_path, capsys, text, message, task):
    path = tmp_path / "text.txt"
    path.unlink()
    if text == "folder":
        path.mkdir()
    elif text is not None:
        path.write_bytes(text)
    before = sorted(tmp_path.rglob("*"))
    assert main(["calibrate", str(folder), str(path), "-o", str(tmp_path / "stats"), "--task", task]) == 1
    assert f"{path}: {message}" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_options_that_do_not_fit_are_refused(refused, options, message):
    refused(message, *options)


def test_unwritable_outputs_are_refused(refused, tmp_path):
    refused("make the folder first", output="none/stats")
    (tmp_path / "stats").mkdir()
    refused("is a folder; give the name of a file")


@pytest.mark.parametrize("kind", ["no tokenizer", "a shard cut off", "weights of another shape"])
def test_other_tasks_refuse_unusable_folders_too(folder, tmp_path, capsys, kind):
    BAD_FOLDERS[kind][0](folder)
    text, output = str(tmp_path / "text.txt"), str(tmp_path / "stats")
    assert main(["calibrate", str(folder), text, "-o", output, "--task", "features"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert str(folder) in last and ("copy" in last or "check that" in last)
    assert not (tmp_path / "stats").exists()


@pytest.mark.parametrize("content", [None, b"no statistics", b"\x02\0\0\0\0\0\0\0{}"], ids=["none", "a text", "other tensors"])
def test_files_without_statistics_are_refused(tmp_path, capsys, content):
    path = tmp_path / "part"
    if content is not None:
        path.write_bytes(content)
    assert main(["merge-statistics", str(path), "-o", str(tmp_path / "stats")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"mpo_checkpoint: {path}: ") and "calibrate" in error and error.count("\n") == 1
    with pytest.raises(StatisticsError, match="calibrate"):
        Statistics.load(path)
    assert not (tmp_path / "stats").exists()


def test_a_count_must_be_a_number(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["calibrate", "model", "text", "-o", "stats", "--samples", "many"])
    assert exit.value.code == 2
    assert "'many' is not a number of at least 1" in capsys.readouterr().err


def test_a_program_that_can_not_be_run_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MPO", str(tmp_path / "mpo"))
    assert main(["adapt", "x.mpo"]) == 1
    error = capsys.readouterr().err
    assert "can't be run (No such file or directory); put the path of the program" in error


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import mpo_checkpoint; mpo_checkpoint.load_into", "mpo_checkpoint.load_into needs the package torch; run: pip install torch"),
        ("import mpo_checkpoint.keras", "mpo_checkpoint.keras needs Keras and a backend"),
        (
            "import sys; from mpo_checkpoint.__main__ import main; sys.exit(main(['calibrate', '{model}', 'text', '-o', 'stats']))",
            "mpo_checkpoint: this command needs the package torch; run: pip install torch transformers",
        ),
    ],
    ids=["PyTorch", "Keras", "a command"],
)
def test_a_missing_package_is_named(tmp_path, code, message):
    (tmp_path / "config.json").write_text("{}")
    hidden = "import sys; sys.modules |= dict.fromkeys(('torch', 'transformers', 'keras')); "
    command = [sys.executable, "-c", hidden + code.replace("{model}", str(tmp_path))]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1 and message in result.stderr.splitlines()[-1]
