"""A long run that can continue after it was killed, because a folder beside the result keeps its finished steps."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class UnfinishedRun:
    """The folder ``<result>.unfinished``, which exists while a run goes on.

    It has ``settings.json``, the settings of the run; ``finished.json``, which is replaced atomically after each step; and the
    files that the run makes itself. Use it as a context: a run that succeeds or fails with an error removes the folder. A run
    that is killed or interrupted leaves it, and the next run with the same settings continues from there.

    Parameters
    ----------
    output
        the path of the result.
    settings
        everything that decides the result, by the name that messages give it.
    is_restarted
        whether to remove what an earlier run left.

    Attributes
    ----------
    finished
        what the earlier run recorded last; empty if there was none.

    Raises
    ------
    ValueError
        if an earlier run had other settings, or if another run is writing the result.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], is_restarted: bool = False):
        self.folder = output.with_name(f"{output.name}.unfinished")
        self.output = output
        self.folder.mkdir(exist_ok=True)
        self._lock = open(self.folder / "lock", "ab")
        try:
            self._lock_folder()
            if is_restarted:
                self._clear()
            wanted = json.loads(json.dumps(settings))
            known, self.finished = self._read("settings.json"), self._read("finished.json")
            if known is None or self.finished is None:
                self._clear()
                self._write("settings.json", wanted)
                self.finished = {}
                return
            others = sorted(name for name in known.keys() | wanted.keys() if known.get(name) != wanted.get(name))
            if others:
                raise ValueError(
                    f"{output}: {self.folder.name} holds an unfinished run, whose {', '.join(others)} "
                    f"{'was' if len(others) == 1 else 'were'} different; run the same command as then, or give "
                    "--restart to begin anew"
                )
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> UnfinishedRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None or issubclass(kind, Exception):
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def path(self, name: str) -> Path:
        """The path of a file in the folder."""
        return self.folder / name

    def finish(self, **finished: Any) -> None:
        """Records a finished step, with what the next run needs instead of doing it again."""
        self.finished = finished
        self._write("finished.json", finished)

    def _lock_folder(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{self.output}: another run is writing it; wait for that run, or stop it") from None

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name != "lock":
                path.unlink()

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            value = json.loads(self.path(name).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        temporary = self.path(f"{name}.new")
        temporary.write_text(json.dumps(value), "utf-8")
        os.replace(temporary, self.path(name))
