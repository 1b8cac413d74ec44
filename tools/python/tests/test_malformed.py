"""The one list of malformed checkpoints that all readers refuse, and the checkpoint they are made from."""

from __future__ import annotations

import re

import numpy as np
import pytest
from malformed import CASES, FOLDER, damaged
from mpo_checkpoint import CheckpointError, MPOCheckpoint, load_dense
from safetensors.numpy import load_file


def test_the_base_is_restored_bit_for_bit():
    expected, found = load_file(FOLDER / "base-matrices.safetensors"), load_dense(FOLDER / "base.mpo")
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_the_base_is_valid():
    MPOCheckpoint(FOLDER / "base.mpo").verify()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_malformed_checkpoints_are_refused(case, tmp_path):
    folder = damaged(case, tmp_path / "x.mpo")
    with pytest.raises(CheckpointError) as caught:
        checkpoint = MPOCheckpoint(folder)
        assert case["at"] == "read", "it was opened"
        checkpoint.verify()
    reason = str(caught.value).replace(str(folder), "")
    assert re.search(case["error"], reason, re.IGNORECASE), reason


def test_every_check_of_the_format_has_a_case():
    assert {case["check"] for case in CASES} == set(range(12))
