"""A model whose weights are loaded block by block.

The parameters are built on PyTorch's ``meta`` device, where they take no memory; buffers are real. The trunk is the
``ModuleList`` with most of the parameters. The weights of one block, or of everything outside the trunk, are read from the
safetensors files of the model folder when they are needed, as float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .experts import ExpertPart, checkpoint_names, expert_parts
from .model_folder import loading, open_weights, weight_files


class NoTrunk(ValueError):
    """A model can't run block by block; the message is the reason, after ``because``."""


class Trunk:
    """A model without weights, and the list of its blocks.

    Parameters
    ----------
    folder
        a Hugging Face model folder with safetensors files.
    auto_class
        the transformers class that builds the model.
    device
        the device of the weights when they are loaded.

    Attributes
    ----------
    model
        the model, whose parameters are on the ``meta`` device.
    path, blocks
        the path of the trunk in the model, and its blocks.
    names
        the names of parameters in the checkpoint, by their names in the model; without stacked experts.
    experts
        the matrices of stacked parameters of experts, by the names of the parameters in the model.

    Raises
    ------
    NoTrunk
        if the model has no list of blocks, or if the checkpoint lacks one of its parameters.
    ValueError
        if the weights or the configuration can't be read.
    """

    def __init__(self, folder: Path, auto_class: Any, device: torch.device | str = "cpu"):
        from transformers import AutoConfig

        self.device = torch.device(device)
        files = weight_files(folder)
        if files is None:
            raise NoTrunk("it has no model.safetensors")
        self._files = files
        with loading(folder):
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with _parameters_on_meta():
            self.model = auto_class.from_config(config, dtype=torch.float32, experts_implementation="eager").eval()
        self.path, self.blocks = trunk_of(self.model)
        prefix = getattr(self.model, "base_model_prefix", "")
        inside = {id(parameter) for block in self.blocks for parameter in block.parameters()}
        # The places of each parameter in the model; a tied parameter has several.
        slots: dict[int, list[tuple[nn.Module, str, str]]] = {}
        for module_name, module in self.model.named_modules():
            for key, parameter in module._parameters.items():
                if parameter is not None:
                    name = f"{module_name}.{key}" if module_name else key
                    slots.setdefault(id(parameter), []).append((module, key, name))
        self._sources: dict[int, list[str]] = {}
        self.experts: dict[str, list[ExpertPart]] = {}
        self.names: dict[str, str] = {}
        for identity, places in slots.items():
            module, key, name = places[0]
            found = [checkpoint_names(name, self._files, prefix) for _, _, name in places]
            source = next((name for name in found if name is not None), None)
            parts = None
            if not getattr(module, "is_transposed", False) and getattr(module, "is_concatenated", True):
                parts = expert_parts(name, module._parameters[key].shape, self._files, prefix)
            if parts is not None:
                self.experts[name] = parts
            if source is None and parts is not None:
                self._sources[identity] = [part.source for part in parts]
                continue
            if source is None:
                raise NoTrunk(f"its checkpoint has no tensor '{name}'")
            self._sources[identity] = [source]
            self.names.update((name, source) for _, _, name in places)
            if identity in inside and len(places) > 1:
                raise NoTrunk(f"its blocks share the weight '{source}'")
        self._slots = slots
        self._outer = [identity for identity in slots if identity not in inside]
        for module in self.model.modules():
            for key, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[key] = buffer.to(self.device)

    @property
    def files(self) -> list[tuple[str, int, int]]:
        """Name, bytes and modification time (in nanoseconds) of each file with weights, which tell whether the model changed."""
        paths = sorted(set(self._files.values()))
        return [(path.name, (found := path.stat()).st_size, found.st_mtime_ns) for path in paths]

    def block_path(self, index: int) -> str:
        """The path of a block in the model."""
        return f"{self.path}.{index}"

    @contextmanager
    def loaded(self, index: int | None) -> Iterator[None]:
        """Loads the weights of a block within the context; with None, the weights of everything outside the trunk."""
        wanted = (
            self._outer if index is None else list(dict.fromkeys(id(p) for p in self.blocks[index].parameters()))
        )
        places = [(identity, self._slots[identity]) for identity in wanted]
        empty = {identity: module._parameters[key] for identity, ((module, key, _), *_) in places}
        try:
            for identity, parameter in zip(wanted, self._read(wanted)):
                if len(self._sources[identity]) > 1 and parameter.numel() == empty[identity].numel():
                    parameter = parameter.reshape(empty[identity].shape)
                if parameter.shape != empty[identity].shape:
                    raise NoTrunk(
                        f"its tensor '{self._sources[identity][0]}' is {list(parameter.shape)}, but the model's is "
                        f"{list(empty[identity].shape)}"
                    )
                weight = nn.Parameter(parameter, requires_grad=False)
                for module, key, _ in self._slots[identity]:
                    module._parameters[key] = weight
            yield
        finally:
            for identity, slots in places:
                for module, key, _ in slots:
                    module._parameters[key] = empty[identity]

    def _read(self, identities: list[int]) -> Iterator[Tensor]:
        """Reads parameters; several tensors of one parameter are concatenated."""
        names = [name for identity in identities for name in self._sources[identity]]
        tensors: dict[str, Tensor] = {}
        for path in dict.fromkeys(self._files[name] for name in names):
            with open_weights(path) as file:
                for name in names:
                    if self._files[name] == path:
                        # A copy instead of a view of the mapped file, so that the file's pages don't stay in memory.
                        tensors[name] = file.get_tensor(name).to(self.device, torch.float32, copy=True)
        for identity in identities:
            first, *others = [tensors.pop(name) for name in self._sources[identity]]
            yield torch.cat([first, *others]) if others else first


def trunk_of(model: nn.Module) -> tuple[str, list[nn.Module]]:
    """Path and blocks of the trunk: the ``ModuleList`` of one class of modules with the most parameters.

    Raises
    ------
    NoTrunk
        if no such list has at least a twentieth of the model's parameters.
    """
    total = sum(p.numel() for p in model.parameters())
    best: tuple[int, str, list[nn.Module]] = (0, "", [])
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) and len({type(block) for block in module}) == 1:
            size = sum(p.numel() for p in module.parameters())
            if size > best[0]:
                best = (size, path, list(module))
    size, path, blocks = best
    if not blocks or size * 20 < total:
        raise NoTrunk("it has no list of equal blocks")
    return path, blocks


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """A context in which modules are built with parameters on the meta device, which takes no memory, and with real buffers."""
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = register_on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register
