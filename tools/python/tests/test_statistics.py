"""The statistics file."""

from __future__ import annotations

import numpy as np
import pytest
from mpo_checkpoint import Statistics, StatisticsError
from safetensors import safe_open
from safetensors.numpy import save_file


def example() -> Statistics:
    x = np.random.default_rng(0).normal(size=(10, 4))
    return Statistics({"a.weight.input_gram": x.T @ x, "a.weight.output_scale": np.ones(3)}, 5, 10, "five samples")


def test_a_file_holds_what_was_saved(tmp_path):
    example().save(tmp_path / "stats.safetensors")
    loaded = Statistics.load(tmp_path / "stats.safetensors")
    assert (loaded.samples, loaded.tokens, loaded.description) == (5, 10, "five samples")
    assert loaded.matrices == ["a.weight"]
    np.testing.assert_allclose(loaded.tensors["a.weight.input_gram"], example().tensors["a.weight.input_gram"], 1e-6)
    assert loaded.tensors["a.weight.input_gram"].dtype == np.float32


def test_a_file_can_be_double_precision(tmp_path):
    example().save(tmp_path / "stats.safetensors", dtype="float64")
    loaded = Statistics.load(tmp_path / "stats.safetensors")
    np.testing.assert_array_equal(loaded.tensors["a.weight.input_gram"], example().tensors["a.weight.input_gram"])


def test_the_metadata_say_what_the_file_is(tmp_path):
    example().save(tmp_path / "stats.safetensors")
    with safe_open(tmp_path / "stats.safetensors", "np") as file:
        assert file.metadata() == {
            "format": "mpo-statistics",
            "version": "1",
            "samples": "5",
            "tokens": "10",
            "description": "five samples",
        }


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("w.input_gram", np.array([[1.0, np.nan], [0.0, 1.0]]), "NaN"),
        ("w.input_gram", np.array([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        ("w.input_gram", np.array([[-1.0, 0.0], [0.0, 1.0]]), "negative"),
        ("w.input_gram", np.ones((2, 3)), "square"),
        ("w.output_scale", np.array([-1.0]), "negative"),
        ("w.output_scale", np.ones((2, 2)), "vector"),
        ("w.weight", np.ones(2), "end in"),
    ],
)
def test_what_no_second_moment_is_is_refused(tmp_path, name, value, reason):
    with pytest.raises(StatisticsError, match=reason):
        Statistics({name: value}).save(tmp_path / "stats.safetensors")
    assert not list(tmp_path.iterdir())
    save_file({name: value}, tmp_path / "bad.safetensors", {"format": "mpo-statistics"})
    with pytest.raises(StatisticsError, match=reason):
        Statistics.load(tmp_path / "bad.safetensors")


def test_other_files_are_refused(tmp_path):
    save_file({"w": np.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(StatisticsError, match="no statistics file"):
        Statistics.load(tmp_path / "model.safetensors")
    save_file({}, tmp_path / "next.safetensors", {"format": "mpo-statistics", "version": "2"})
    with pytest.raises(StatisticsError, match="version 2"):
        Statistics.load(tmp_path / "next.safetensors")
