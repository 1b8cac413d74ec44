"""Every public function documents its parameters and its result in NumPy style."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import mpo_checkpoint

FUNCTIONS = [name for name in mpo_checkpoint._HOMES if inspect.isfunction(getattr(mpo_checkpoint, name))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_documents_its_parameters_and_its_result(name):
    function = getattr(mpo_checkpoint, name)
    text, signature = inspect.getdoc(function), inspect.signature(function)
    assert "\nParameters\n----------\n" in text
    listed = {word for line in re.findall(r"(?m)^(\w+(?:, \w+)*)$", text) for word in line.split(", ")}
    assert set(signature.parameters) <= listed | {"args", "kwargs"}
    if signature.return_annotation not in (None, "None"):
        assert "\nReturns\n-------\n" in text


def test_no_docstring_has_sections_of_another_style():
    for path in Path(mpo_checkpoint.__file__).parent.rglob("*.py"):
        found = re.search(r"(?m)^ +(Args|Arguments|Attributes|Raises|Returns|Yields):$", path.read_text("utf-8"))
        assert found is None, f"{path.name}: {found and found[0].strip()}"
