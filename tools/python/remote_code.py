"""Lets transformers load this folder with ``trust_remote_code=True``, also if the package mpo_checkpoint is not installed.

``mpo convert --remote-code`` wrote this file and named it in ``config.json``. If mpo_checkpoint is installed, it is used. Otherwise
this file imports the package from its sources, which are at the end.
"""

import importlib
import sys
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader


class MPOAutoConfig:
    """The class that ``auto_map`` in ``config.json`` names; it gives the configuration of transformers' own class."""

    @classmethod
    def register_for_auto_class(cls, auto_class="AutoConfig"):
        """Does nothing: when the model is saved, the package copies this file."""

    @classmethod
    def from_pretrained(cls, name, **options):
        """The configuration of transformers' own class."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(name, trust_remote_code=False, **options)


class PackageSources(MetaPathFinder, InspectLoader):
    """Imports the modules of `SOURCES`."""

    def find_spec(self, fullname, path=None, target=None) -> "ModuleSpec | None":
        return spec_from_loader(fullname, self) if fullname in SOURCES else None

    def is_package(self, fullname):
        return any(name.startswith(f"{fullname}.") for name in SOURCES)

    def get_source(self, fullname):
        return "\n".join(line[1:] for line in SOURCES[fullname].split("\n"))

    def get_code(self, fullname):
        return self.source_to_code(self.get_source(fullname), f"<{fullname} in {__name__}>")


def import_package():
    """Imports mpo_checkpoint, which registers the format with transformers."""
    try:
        import mpo_checkpoint
    except ModuleNotFoundError as error:
        if error.name != "mpo_checkpoint":
            raise
        if not SOURCES:
            raise ImportError(
                "this model needs the package mpo_checkpoint; install it, or convert the model again with --remote-code"
            ) from None
        sys.meta_path.append(PackageSources())
        mpo_checkpoint = importlib.import_module("mpo_checkpoint")
    return mpo_checkpoint


# The sources by the names of their modules. Each line begins with a bar, so that no tool takes their imports for imports of this file.
SOURCES: "dict[str, str]" = {}

import_package()
