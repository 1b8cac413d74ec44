"""Which program ``mpo`` the package runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mpo_checkpoint import tool


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A program in the package and one in the PATH."""
    for name in ("bundled", "path"):
        (tmp_path / name).mkdir()
        program = tmp_path / name / "mpo"
        program.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        program.chmod(0o755)
    monkeypatch.delenv("MPO", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.setattr(tool, "BUNDLED", tmp_path / "bundled" / "mpo")
    return tmp_path


def test_the_variable_precedes_the_package_and_that_the_path(places, monkeypatch):
    assert tool.program() == str(places / "bundled" / "mpo")
    monkeypatch.setenv("MPO", "/elsewhere/mpo")
    assert tool.program() == "/elsewhere/mpo"
    monkeypatch.delenv("MPO")
    (places / "bundled" / "mpo").unlink()
    assert tool.program() == str(places / "path" / "mpo")
    (places / "path" / "mpo").unlink()
    with pytest.raises(FileNotFoundError, match="install it where PATH finds it, or put its path into"):
        tool.program()


def test_the_command_becomes_the_program_with_its_arguments(places):
    code = (
        "import pathlib, sys; from mpo_checkpoint import tool; "
        f"tool.BUNDLED = pathlib.Path({str(places / 'bundled' / 'mpo')!r}); sys.argv = ['mpo', 'convert', 'a b']; tool.main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "bundled convert a b\n"
