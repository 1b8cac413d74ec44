"""The statistics file."""

from __future__ import annotations

import numpy as np
import pytest
from mpo_checkpoint import Statistics, StatisticsError
from safetensors import safe_open
from safetensors.numpy import save_file


def example() -> Statistics:
    x = np.random.default_rng(0).normal(size=(10, 4))
    return Statistics({"a.weight.column_gram": x.T @ x, "a.weight.row_scale": np.ones(3)}, 5, 10, "five samples")


def test_a_file_holds_what_was_saved(tmp_path):
    example().save(tmp_path / "stats.safetensors")
    loaded = Statistics.load(tmp_path / "stats.safetensors")
    assert (loaded.samples, loaded.tokens, loaded.description) == (5, 10, "five samples")
    assert loaded.matrices == ["a.weight"]
    np.testing.assert_allclose(loaded.tensors["a.weight.column_gram"], example().tensors["a.weight.column_gram"], 1e-6)
    assert loaded.tensors["a.weight.column_gram"].dtype == np.float32


def test_a_file_can_be_double_precision(tmp_path):
    example().save(tmp_path / "stats.safetensors", dtype="float64")
    loaded = Statistics.load(tmp_path / "stats.safetensors")
    np.testing.assert_array_equal(loaded.tensors["a.weight.column_gram"], example().tensors["a.weight.column_gram"])


def test_the_metadata_say_what_the_file_is(tmp_path):
    example().save(tmp_path / "stats.safetensors")
    with safe_open(tmp_path / "stats.safetensors", "np") as file:
        assert file.metadata() == {
            "format": "mpo-statistics",
            "version": "2",
            "samples": "5",
            "tokens": "10",
            "description": "five samples",
        }


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("w.column_gram", np.array([[1.0, np.nan], [0.0, 1.0]]), "NaN"),
        ("w.column_gram", np.array([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        ("w.column_gram", np.array([[-1.0, 0.0], [0.0, 1.0]]), "negative"),
        ("w.column_gram", np.ones((2, 3)), "square"),
        ("w.row_scale", np.array([-1.0]), "negative"),
        ("w.row_scale", np.ones((2, 2)), "vector"),
        ("w.weight", np.ones(2), "end in"),
    ],
)
def test_invalid_second_moments_are_refused(tmp_path, name, value, reason):
    with pytest.raises(StatisticsError, match=reason):
        Statistics({name: value}).save(tmp_path / "stats.safetensors")
    assert not list(tmp_path.iterdir())
    save_file({name: value}, tmp_path / "bad.safetensors", {"format": "mpo-statistics"})
    with pytest.raises(StatisticsError, match=reason):
        Statistics.load(tmp_path / "bad.safetensors")


def test_other_files_are_refused(tmp_path):
    save_file({"w": np.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(StatisticsError, match="not a statistics file"):
        Statistics.load(tmp_path / "model.safetensors")
    save_file({}, tmp_path / "next.safetensors", {"format": "mpo-statistics", "version": "3"})
    with pytest.raises(StatisticsError, match="version 3"):
        Statistics.load(tmp_path / "next.safetensors")


def test_the_names_of_version_1_are_read(tmp_path):
    tensors = {"a.input_gram": np.eye(4), "a.output_scale": np.ones(3), "b.element_weights": np.ones((2, 2))}
    save_file(tensors, tmp_path / "old.safetensors", {"format": "mpo-statistics", "version": "1"})
    loaded = Statistics.load(tmp_path / "old.safetensors")
    assert sorted(loaded.tensors) == ["a.column_gram", "a.row_scale", "b.element_weights"]
    np.testing.assert_array_equal(loaded.tensors["a.column_gram"], np.eye(4))
    assert loaded.input_rows is None and loaded.inputs("a") == "column"
    # What is not known of the inputs is not known in a copy either.
    loaded.save(tmp_path / "copy.safetensors")
    with safe_open(tmp_path / "copy.safetensors", "np") as file:
        assert "input_rows" not in file.metadata() and file.metadata()["version"] == "2"
    with pytest.raises(StatisticsError, match="old name"):
        Statistics({"a.input_gram": np.eye(4), "a.column_gram": np.eye(4)})


def test_the_side_of_the_inputs_is_kept(tmp_path):
    names = ["h.0.\u03b1", 'with "quotes", and commas']
    Statistics({f"{name}.row_scale": np.ones(3) for name in names}, input_rows=names[:1]).save(tmp_path / "s.safetensors")
    loaded = Statistics.load(tmp_path / "s.safetensors")
    assert loaded.input_rows == names[:1]
    assert [loaded.inputs(name) for name in names] == ["row", "column"]


@pytest.mark.parametrize("text", ["a", "{}", "[1]", '["a"'])
def test_an_unreadable_list_of_inputs_is_refused(tmp_path, text):
    save_file({}, tmp_path / "s.safetensors", {"format": "mpo-statistics", "version": "2", "input_rows": text})
    with pytest.raises(StatisticsError, match="input_rows"):
        Statistics.load(tmp_path / "s.safetensors")
