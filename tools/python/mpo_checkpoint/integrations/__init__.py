"""Registers MPO checkpoints with transformers and PEFT as soon as these are imported, before or after this package.

This imports neither of them: ``import mpo_checkpoint`` needs only NumPy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_HOOKS = {"transformers.modeling_utils": ".transformers", "peft.tuners.lora.model": ".peft"}
"""The modules here that register with another library, by the module of that library."""


class _AfterImport(MetaPathFinder):
    """Finds a module of `_HOOKS` in the usual way, and registers with it after it is loaded."""

    def __init__(self) -> None:
        self._searching: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _HOOKS or fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            spec = find_spec(fullname)
        finally:
            self._searching.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _register(module)

    def __getattr__(self, name: str) -> object:  # get_source and the like
        return getattr(self._loader, name)


def _register(module: ModuleType) -> None:
    import_module(_HOOKS[module.__name__], __name__).register(module)


def register() -> None:
    """Registers with the libraries that are loaded, and with the others when they are loaded."""
    if any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _AfterImport())
    for name in _HOOKS:
        module = sys.modules.get(name)
        if module is not None and not getattr(module.__spec__, "_initializing", False):
            _register(module)
