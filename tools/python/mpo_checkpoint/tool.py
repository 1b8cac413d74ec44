"""Finds the program ``mpo``: in this package, if a wheel installed it with the program, or elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

BUNDLED = Path(__file__).parent / "bin" / "mpo"


def program() -> str:
    """The path of ``mpo``. Looks in the environment variable ``MPO``, in this package, and in ``PATH``, in this order.

    Returns
    -------
    str
        the path of an executable.

    Raises
    ------
    FileNotFoundError
        if it is in none of them.
    """
    found = os.environ.get("MPO") or (str(BUNDLED) if BUNDLED.is_file() else shutil.which("mpo"))
    if not found:
        raise FileNotFoundError(
            "the program mpo was not found; install it where PATH finds it, or put its path into the environment variable MPO"
        )
    return found


def main() -> None:
    """The command ``mpo`` of a wheel with the program: runs the program with the same arguments in place of this process."""
    os.execv(BUNDLED, ["mpo", *sys.argv[1:]])
