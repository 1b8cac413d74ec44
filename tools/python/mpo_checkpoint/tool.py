"""The program ``mpo``: the one in this package, where it was installed from a wheel that has it, or one elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

BUNDLED = Path(__file__).parent / "bin" / "mpo"


def program() -> str:
    """The path of ``mpo``: what the environment variable ``MPO`` says, the one in this package, or that of the ``PATH``.

    Returns
    -------
    str
        the path of an executable.

    Raises
    ------
    FileNotFoundError
        where there is none.
    """
    found = os.environ.get("MPO") or (str(BUNDLED) if BUNDLED.is_file() else shutil.which("mpo"))
    if not found:
        raise FileNotFoundError(
            "the program mpo is not found; put it into the PATH, or its path into the environment variable MPO"
        )
    return found


def main() -> None:
    """The command ``mpo`` of a wheel with the program: becomes it, with the same arguments."""
    os.execv(BUNDLED, ["mpo", *sys.argv[1:]])
