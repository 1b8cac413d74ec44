"""The one list of malformed checkpoints that all readers refuse, and the checkpoint they are made from."""

from __future__ import annotations

import copy
import json
import random
import re
import shutil

import numpy as np
import pytest
from malformed import CASES, FOLDER, damaged
from mpo_checkpoint import CheckpointError, MPOCheckpoint, load_dense
from reference import sign
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


def test_any_value_in_a_manifest_is_read_or_is_an_error(tmp_path):
    """If any member has any other value, the checkpoint can be read, or a `CheckpointError` is raised."""
    generator = random.Random(0)
    manifest = json.loads((FOLDER / "base.mpo/manifest.json").read_text("utf-8"))
    folder = tmp_path / "x.mpo"
    shutil.copytree(FOLDER / "base.mpo", folder)
    refused = 0
    for _ in range(1500):
        changed = copy.deepcopy(manifest)
        place, key = generator.choice(list(_places({k: changed[k] for k in ("tensors", "operators", "cores")})))
        place[key] = generator.choice(JUNK)
        sign(folder / "manifest.json", changed)
        try:
            load_dense(folder)
        except CheckpointError:
            refused += 1
    assert refused > 500


JUNK = [
    None,
    True,
    0,
    1,
    3,
    -1,
    2**31,
    2**64,
    2.5,
    "",
    "left",
    "F16",
    "I64",
    "shared.basis",
    "chain.weight",
    [],
    [0],
    [2, 2],
    [[]],
    {},
    {"operator": "qk"},
]


def _places(value):
    """Every member and item inside a value: its container and its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)
