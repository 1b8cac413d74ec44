"""Loads MPO checkpoints into PyTorch models."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from .checkpoint import MPOCheckpoint
from .errors import CheckpointError
from .integer_matrix import IntegerMatrix
from .integers import IntegerArray
from .layers import Kind, kind_of
from .load_report import LoadedCheckpoint, LoadReport
from .mpo_layers import MPOConv1D, MPOEmbedding, MPOLinear
from .mpo_matrix import MPOMatrix
from .names import checkpoint_name
from .records import TensorRecord
from .safetensors_file import FLOATING
from .side_basis import Constant
from .torch_entries import tensor_of
from .weights import WeightBuilder, stored_count

Trainable = Literal["auxiliary", "all", "central", "inner", "none"]


def load_into(
    model: nn.Module,
    path: Path | str,
    trainable: Trainable = "auxiliary",
    *,
    vectors: bool | None = None,
    matrices: bool | None = None,
    keeps_matrix: bool = True,
) -> LoadReport:
    """Loads an MPO checkpoint into a model of the dense architecture, in place.

    Layers whose weight is made of operators are replaced by layers made of cores. Operators that share a core share one
    parameter. Cores and tensors have the dtype and the device of what they replace: in a float32 model, a half-precision
    checkpoint is trained in float32, and `save` rounds once. If a layer has no counterpart made of cores, its weight is restored
    to dense.

    If cores are trained, an operator in the gauge compact first becomes canonical (by QR in float64), with isometries beside a
    central core that carries the weight; an operator that shares a core with another keeps its cores, whole. If only inner
    cores or none are trained, a low-rank operator stays compact, see `CompactMPOWeight`.

    Cores and dense matrices in the encoding ``grouped`` stay integers in memory, and so do those in ``scaled`` if ``trainable``
    is ``"none"``; layers decode some rows at a time. Integers are never trained. The other cores of such an operator are
    trained in the gauge in which they are stored. With ``"inner"`` all cores are floats.

    Parameters
    ----------
    model
        a model of the dense architecture, as its configuration builds it; its values are not used.
    path
        the checkpoint's folder.
    trainable
        which cores are trained: ``"auxiliary"``, ``"all"``, ``"central"``, ``"inner"`` or ``"none"``. Bases are never trained;
        parameters that the checkpoint does not have always are. In a low-rank matrix (two sites) one factor counts as central
        and the other as auxiliary: choose ``"all"`` for such checkpoints. ``"inner"`` trains the square cores between the two
        frames of low-rank matrices: those of deep factors (``mpo convert --structure svd --sites 3`` or more); other low-rank
        matrices get one square core, which `save` multiplies into a frame.
    vectors
        whether biases, norms and other vectors are trained; by default they are unless ``trainable`` is ``"none"``.
    matrices
        whether matrices that are stored dense are trained; by default only if ``trainable`` is ``"all"``.
    keeps_matrix
        whether layers may keep the matrix of their cores in memory, see `MPOMatrix`. The matrix of integers is kept only if it
        takes at most an eighth of the free memory.

    Returns
    -------
    LoadReport
        what was loaded, and which part of it is trained; also available as ``model.mpo_source.report``.

    Raises
    ------
    CheckpointError
        if the folder is not a valid checkpoint, or one of another architecture.
    ValueError
        if ``trainable`` is invalid, or if the model is made of cores already.
    """
    if trainable not in get_args(Trainable):
        raise ValueError(f"trainable is '{trainable}', not {', '.join(get_args(Trainable))}")
    if hasattr(model, "mpo_source") or any(isinstance(module, MPOMatrix) for module in model.modules()):
        raise ValueError("the model is made of cores already; build a new one, or use load_state_dict")
    checkpoint = MPOCheckpoint(path)
    loader = Loader(model, checkpoint, WeightBuilder(checkpoint, trainable, keeps_matrix))
    loader.replace_layers()
    loader.copy_tensors()
    report = loader.report(
        trainable,
        vectors=trainable != "none" if vectors is None else vectors,
        matrices=trainable == "all" if matrices is None else matrices,
    )
    digest = checkpoint.manifest.raw["manifest_sha256"]
    model.mpo_source = LoadedCheckpoint(checkpoint.path, digest, loader.names, report)
    return report


def from_pretrained(
    folder: Path | str,
    trainable: Trainable = "auxiliary",
    *,
    task: str = "features",
    dtype: torch.dtype = torch.float32,
    vectors: bool | None = None,
    matrices: bool | None = None,
    keeps_matrix: bool = True,
    **config: Any,
) -> nn.Module:
    """The Hugging Face model of a converted model folder, built from the folder's ``config.json``.

    Parameters
    ----------
    folder
        the checkpoint's folder.
    task
        the head of the model: ``features`` (no head), ``causal-lm``, ``masked-lm``, ``seq2seq-lm``, ``sequence-classification``,
        ``token-classification`` or ``question-answering``.
    dtype
        the dtype of the model's parameters.
    config
        members of the configuration to set, such as ``num_labels``.
    trainable, vectors, matrices, keeps_matrix
        see `load_into`.

    Returns
    -------
    Module
        the model in evaluation mode; ``mpo_source.report`` has the numbers of its parameters.

    Raises
    ------
    CheckpointError
        if the folder is not a valid checkpoint, has no ``config.json``, or does not fit the task's model.
    ValueError
        if there is no such task, or if ``trainable`` is invalid.
    """
    from transformers import AutoConfig

    from .huggingface import auto_class

    if not (Path(folder) / "config.json").is_file():
        raise CheckpointError(folder, "has no config.json; it was not converted from a model folder: use load_into")
    configuration = AutoConfig.from_pretrained(folder, local_files_only=True, **config)
    model = auto_class(task).from_config(configuration, dtype=dtype)
    load_into(model, folder, trainable, vectors=vectors, matrices=matrices, keeps_matrix=keeps_matrix)
    return model.eval()


class Loader:
    """Loads one checkpoint into one model."""

    def __init__(self, model: nn.Module, checkpoint: MPOCheckpoint, builder: WeightBuilder):
        self.model, self.checkpoint, self.builder = model, checkpoint, builder
        self.prefix = getattr(model, "base_model_prefix", "")
        self.names: dict[str, str] = {}
        self.restored: list[str] = []
        self.new: list[str] = []

    def _record(self, model_name: str) -> TensorRecord | None:
        name = checkpoint_name(model_name, self.checkpoint.tensors, self.prefix)
        return None if name is None else self.checkpoint.tensors[name]

    def replace_layers(self) -> None:
        """Replaces the layers whose weight the checkpoint has as cores or as integers."""
        for members in _weights_of_layers(self.model).values():
            records = [record for path, _, _ in members if (record := self._record(_join(path, "weight")))]
            if not records:
                continue
            record = self.checkpoint.holder(records[0])
            dense = members[0][1].weight
            if record.shape != tuple(dense.shape) or not self.builder.is_held(record):
                continue
            if not all(_has_counterpart(self.model, path, module) for path, module, _ in members):
                continue
            weight = self.builder.weight(record, dense)
            for path, module, kind in members:
                own = self._record(_join(path, "weight")) or record
                self.names[_join(path, "weight")] = own.name
                if path == "":
                    raise CheckpointError(self.checkpoint.path, "the model is a single layer; put it into a module")
                parent, _, child = path.rpartition(".")
                self.model.get_submodule(parent)._modules[child] = _counterpart(module, kind, weight)

    def copy_tensors(self) -> None:
        """Copies the tensors that are not in layers made of cores."""
        problems = []
        for tensor, names in dense_tensors(self.model).items():
            records = {name: record for name in names if (record := self._record(name))}
            if not records:
                self.new.append(names[0])
                continue
            self.names.update({name: record.name for name, record in records.items()})
            name, record = next(iter(records.items()))
            if record.shape != tuple(tensor.shape):
                problems.append(f"{record.name} is {list(record.shape)}, the model's {name} is {list(tensor.shape)}")
                continue
            holder = self.checkpoint.holder(record)
            if holder.kind == "mpo":
                self.restored.append(record.name)
                value = torch.from_numpy(self.checkpoint.tensor(record.name))
            else:
                value = tensor_of(self.checkpoint.dense(holder))
            with torch.no_grad():
                tensor.copy_(value)
        if problems:
            raise CheckpointError(self.checkpoint.path, "does not fit the model: " + "; ".join(problems))
        if not self.names:
            raise CheckpointError(
                self.checkpoint.path, "has no tensor of the model, so it is of another architecture; load it into the model that was converted"
            )

    def report(self, trainable: Trainable, vectors: bool, matrices: bool) -> LoadReport:
        """Decides which parameters are trained, and counts them."""
        roles: dict[nn.Parameter, str] = {}
        for module in self.model.modules():
            if isinstance(module, MPOMatrix):
                roles |= dict.fromkeys(module.auxiliary_cores, "auxiliary")
                roles |= dict.fromkeys(module.central_cores, "central") | dict.fromkeys(module.inner_cores, "inner")
        if trainable == "inner" and "inner" not in roles.values():
            raise CheckpointError(
                self.checkpoint.path,
                "has no low-rank matrices, whose inner cores could be trained; convert with --structure svd or auto",
            )
        new = set(self.new)
        learning = {
            "central": trainable in ("central", "all"),
            "auxiliary": trainable in ("auxiliary", "all"),
            "inner": trainable in ("inner", "auxiliary", "all"),
            "vectors": vectors,
            "matrices": matrices,
            "new": True,
        }
        report = LoadReport(new=self.new, restored=self.restored)
        for name, parameter in self.model.named_parameters():
            role = roles.get(parameter) or ("new" if name in new else "vectors" if parameter.ndim < 2 else "matrices")
            parameter.requires_grad_(learning[role] and parameter.is_floating_point())
            report.parameters[role] += parameter.numel()
            report.trainable[role] += parameter.numel() if parameter.requires_grad else 0
        self._count_integers(report)
        constants = (module for module in self.model.modules() if isinstance(module, Constant))
        report.parameters["bases"] = sum(constant.value.numel() for constant in constants)
        tensors = self.checkpoint.tensors
        used = set(self.names.values())
        holders = {self.checkpoint.holder(tensors[name]).name for name in used}
        report.unused = [tensor.name for tensor in self.checkpoint if tensor.name not in used | holders]
        report.parameters_stored = report.parameters["new"] + stored_count(self.checkpoint, holders)
        report.parameters_before = report.parameters["new"] + sum(
            prod(tensors[name].shape) for name in holders if tensors[name].dtype in FLOATING
        )
        return report


    def _count_integers(self, report: LoadReport) -> None:
        """What stays integers is held, and never trained."""
        roles: dict[IntegerArray, str] = {}
        for path, module in self.model.named_modules():
            if not isinstance(module, MPOMatrix) or not module.integers:
                continue
            report.integers.append(self.names.get(path, path))
            if isinstance(module, IntegerMatrix):
                roles[module.array] = "matrices"
            for operator in module.operators:
                for k, core in enumerate(operator.stored_cores):
                    if isinstance(core, IntegerArray):
                        roles[core] = "central" if k == operator.central else "auxiliary"
        for array, role in roles.items():
            report.parameters[role] += array.numel()


def _weights_of_layers(model: nn.Module) -> dict[Tensor, list[tuple[str, nn.Module, Kind]]]:
    """The layers of each weight, with their paths; a tied weight has several."""
    layers: dict[Tensor, list[tuple[str, nn.Module, Kind]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        kind = kind_of(module)
        if kind is not None and isinstance(module.weight, nn.Parameter):
            layers.setdefault(module.weight, []).append((path, module, kind))
    return layers


def _has_counterpart(model: nn.Module, path: str, module: nn.Module) -> bool:
    """Whether a layer made of cores computes the same; that of a subclass may not."""
    parent = model.get_submodule(path.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention):
        return False  # it does not call its layer, but reads the layer's weight
    if type(module) is nn.Embedding:
        return module.max_norm is None and not module.scale_grad_by_freq and not module.sparse
    return type(module) is nn.Linear or type(module).__name__ == "Conv1D"


def _counterpart(module: nn.Module, kind: Kind, weight: MPOMatrix) -> nn.Module:
    if kind is Kind.LINEAR:
        layer: nn.Module = MPOLinear(weight, module.bias)
    elif kind is Kind.CONV1D:
        layer = MPOConv1D(weight, module.bias)
    else:
        layer = MPOEmbedding(weight, module.padding_idx)
    return layer.train(module.training)


def dense_tensors(model: nn.Module) -> dict[Tensor, list[str]]:
    """Parameters and persistent buffers that are not cores, with their names; a tied one has several."""
    weights = (module for module in model.modules() if isinstance(module, MPOMatrix))
    cores = {core for weight in weights for core in weight.state_dict(keep_vars=True).values()}
    names: dict[Tensor, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and tensor not in cores:
            names.setdefault(tensor, []).append(name)
    return names


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
