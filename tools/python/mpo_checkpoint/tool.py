"""The program ``mpo``: the one in this package, where it was installed from a wheel that has it, or one elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

BUNDLED = Path(__file__).parent / "bin" / "mpo"


def program() -> str:
    """The path of ``mpo``: from the environment variable ``MPO``, in this package, or from ``PATH``, in this order.

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
            "the program mpo was not found; install it where PATH finds it, or put its path into the environment variable MPO"
        )
    return found


def main() -> None:
    """The command ``mpo`` of a wheel with the program: becomes it, with the same arguments."""
    os.execv(BUNDLED, ["mpo", *sys.argv[1:]])
