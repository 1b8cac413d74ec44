"""Lets transformers load and save MPO checkpoints: ``AutoModel.from_pretrained("x.mpo")``, once mpo_checkpoint is imported.

The ``config.json`` of a converted folder names the quantisation method ``mpo``. transformers builds the model on the meta device;
this module replaces its layers by layers made of cores; then transformers' own loader sets every tensor. So ``dtype``,
``device_map``, offloading, tied weights and new heads work as for any model.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import torch
from torch import Tensor, nn
from transformers.quantizers import auto
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from ..checkpoint import MPOCheckpoint
from ..errors import CheckpointError
from ..load_report import LoadedCheckpoint
from ..loading import Loader, Trainable
from ..manifest import NAME
from ..mpo_matrix import MPOMatrix
from ..records import TensorRecord
from ..saving import SHARD, save_into
from ..torch_entries import tensor_of, torch_dtype
from ..weights import WeightBuilder

METHOD = "mpo"
REMOTE_CODE = "mpo_remote_code.py"
"""The file with code in a folder that ``mpo convert --remote-code`` wrote."""


class MPOConfig(QuantizationConfigMixin):
    """The ``quantization_config`` of ``config.json``, and options of loading a model.

    Parameters
    ----------
    trainable, vectors, matrices
        which parameters require gradients, as for `mpo_checkpoint.load_into`. By default all do, as in any model that
        ``from_pretrained`` loads. With any other ``trainable`` than ``"all"`` and ``"none"``, cores become canonical.
    keeps_matrix
        whether layers may keep the matrix of their cores in memory.
    format_version
        the version of the MPO checkpoint's format.

    Raises
    ------
    ValueError
        if ``trainable`` is invalid.
    """

    def __init__(
        self,
        trainable: Trainable = "all",
        vectors: bool | None = None,
        matrices: bool | None = None,
        keeps_matrix: bool = True,
        format_version: str | None = None,
        **rest: Any,
    ):
        if trainable not in get_args(Trainable):
            raise ValueError(f"trainable is '{trainable}', not {', '.join(get_args(Trainable))}")
        self.quant_method = METHOD
        self.format_version = format_version
        self.trainable, self.vectors, self.matrices, self.keeps_matrix = trainable, vectors, matrices, keeps_matrix

    def get_loading_attributes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("trainable", "vectors", "matrices", "keeps_matrix")}

    def to_dict(self) -> dict[str, Any]:
        """The members that ``config.json`` has; options of loading are not among them."""
        return {"quant_method": METHOD} | ({"format_version": self.format_version} if self.format_version else {})


class MPOQuantizer(HfQuantizer):
    """Loads MPO checkpoints within ``from_pretrained``."""

    requires_calibration = True  # transformers must not quantise a dense model with this class

    def __init__(self, quantization_config: MPOConfig, **kwargs: Any):
        if not kwargs.get("pre_quantized", True):
            raise ValueError("MPOConfig is for folders that 'mpo convert' wrote; convert the model, then load the result")
        super().__init__(quantization_config, **kwargs)
        self._load: _Load | None = None

    # The interface of transformers' quantisers

    def update_attn_implementation(self, config: Any) -> Any:
        """Tells transformers the name of the file with the weights, which is not the usual one. Called before it is looked for."""
        return _with_weights_file(config)

    update_tp_plan = update_ep_plan = update_attn_implementation  # older versions call these with the configuration

    def _process_model_before_weight_loading(self, model: nn.Module, **kwargs: Any) -> nn.Module:
        files = kwargs.get("checkpoint_files") or []
        if not files:
            raise CheckpointError(model.config.name_or_path, "has no files with weights; give the folder that 'mpo convert' wrote")
        folder = Path(files[0]).parent
        if not (folder / NAME).is_file():
            raise CheckpointError(folder, f"has no {NAME}; copy the whole folder that 'mpo convert' wrote")
        self._load = _Load(model, folder, self.quantization_config)
        return model

    def _process_model_after_weight_loading(self, model: nn.Module, **kwargs: Any) -> nn.Module:
        assert self._load is not None
        self._load.finish()
        self._load = None
        model.is_quantized = False  # its parameters may be cast like those of any model
        return model

    @property
    def values(self) -> dict[str, Any] | None:
        """The values of the model's tensors, by their names in the model, or in the source if transformers renames them.

        None unless a model is being loaded.
        """
        return None if self._load is None else self._load.values

    def get_new_dtype(self, converter: Any, param: Any, dtype: torch.dtype | None) -> torch.dtype | None:
        dtype_of = param.get_dtype() if hasattr(param, "get_dtype") else None
        is_floating = dtype_of[0] in "FB" and dtype_of != "BOOL" if dtype_of else param.is_floating_point()
        return dtype if is_floating else None

    def is_serializable(self, **kwargs: Any) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True

    @property
    def is_qat_trainable(self) -> bool:
        return True

    @property
    def is_compileable(self) -> bool:
        return True


class _Load:
    """One load: replaces the layers of a model on the meta device and provides the values of its tensors.

    Attributes
    ----------
    values
        tensors, or objects that read them when they are indexed, by name.
    """

    def __init__(self, model: nn.Module, folder: Path, options: MPOConfig):
        self.options = options
        self.checkpoint = MPOCheckpoint(folder, companions=False)
        records, merged = _records(model, self.checkpoint)
        self.loader = _MetaLoader(model, self.checkpoint, options, records)
        with torch.device("cpu"):
            self.loader.replace_layers()
        if not self.loader.names and not records:
            raise CheckpointError(folder, "has no tensor of the model, so it is of another architecture; load it into the model that was converted")
        self.loader.names |= {name: record.name for name, record in records.items() if name not in self.loader.names}
        self.loader.restored = [n for n, r in records.items() if r.kind == "mpo" and n not in self.loader.replaced]
        self._merged = merged
        self.values: dict[str, Any] = {}
        self._shared: dict[int, list[str]] = {}
        self._buffers: list[tuple[nn.Module, str, Tensor]] = []
        for path, weight in self._weights():
            for name, core in weight.state_dict(keep_vars=True, prefix=f"{path}.").items():
                self.values[name] = core.detach()
                if isinstance(core, nn.Parameter):
                    self._shared.setdefault(id(core), []).append(name)
            for part in weight.modules():
                self._buffers += [(part, name, buffer) for name, buffer in part._buffers.items() if buffer is not None]
        for name, record in records.items():
            if name not in self.loader.replaced:
                self.values[name] = _Stored(self.checkpoint, record)
        for name in merged:
            self.values[name] = _Stored(self.checkpoint, self.checkpoint.tensors[name])
        _untie(model, self.loader.replaced)

    def _weights(self) -> list[tuple[str, MPOMatrix]]:
        modules = self.loader.model.named_modules(remove_duplicate=False)
        return [(path, module) for path, module in modules if isinstance(module, MPOMatrix) and path in self.loader.replaced]

    def finish(self) -> None:
        """Completes the model after transformers has set its tensors: buffers, shared cores, and which parameters are trained."""
        model, options = self.loader.model, self.options
        for part, name, buffer in self._buffers:
            place = part._buffers[name]
            part._buffers[name] = buffer if place is None or place.is_meta else buffer.to(place.device)
        for names in self._shared.values():
            first = model.get_parameter(names[0])
            for name in names[1:]:
                parent, _, child = name.rpartition(".")
                other = model.get_parameter(name)
                if not other.is_meta and other.device == first.device:
                    setattr(model.get_submodule(parent), child, first)
        known = self.loader.names.keys() | self.values.keys()
        self.loader.new = [name for name, _ in model.named_parameters() if name not in known]
        trainable = options.trainable
        report = self.loader.report(
            trainable,
            vectors=trainable != "none" if options.vectors is None else options.vectors,
            matrices=trainable == "all" if options.matrices is None else options.matrices,
        )
        digest = self.checkpoint.manifest.raw["manifest_sha256"]
        model.mpo_source = LoadedCheckpoint(self.checkpoint.path, digest, self.loader.names, report, self._merged)


class _MetaLoader(Loader):
    """Replaces the layers of a model on the meta device; transformers' own renaming finds their records."""

    def __init__(self, model: nn.Module, checkpoint: MPOCheckpoint, options: MPOConfig, records: dict[str, TensorRecord]):
        # With "all" no core is frozen, so a low-rank matrix can stay as it is stored.
        trainable = "none" if options.trainable == "all" else options.trainable
        builder = _MetaBuilder(checkpoint, trainable, options.keeps_matrix)
        super().__init__(model, checkpoint, builder)
        self.records = records

    def _record(self, model_name: str) -> TensorRecord | None:
        return self.records.get(model_name)

    @property
    def replaced(self) -> set[str]:
        return {path for path, module in self.model.named_modules(remove_duplicate=False) if isinstance(module, MPOMatrix)}


class _MetaBuilder(WeightBuilder):
    """Builds weights on the CPU for layers on the meta device."""

    def weight(self, tensor: TensorRecord, like: Tensor) -> MPOMatrix:
        return super().weight(tensor, torch.empty(0, dtype=like.dtype, device="cpu"))


class _Stored:
    """A tensor of a checkpoint that is read (and restored, if it is made of cores) when it is indexed."""

    def __init__(self, checkpoint: MPOCheckpoint, record: TensorRecord):
        self._checkpoint, self._record = checkpoint, record

    def get_dtype(self) -> str:
        return self._record.dtype

    def get_shape(self) -> list[int]:
        return list(self._record.shape)

    def __getitem__(self, index: Any) -> Tensor:
        holder = self._checkpoint.holder(self._record)
        if holder.kind == "dense":
            return tensor_of(self._checkpoint.dense(holder))[index]
        restored = torch.from_numpy(self._checkpoint.tensor(self._record.name))
        return restored.to(torch_dtype(self._record.dtype))[index]


def _records(model: nn.Module, checkpoint: MPOCheckpoint) -> tuple[dict[str, TensorRecord], list[str]]:
    """The records of a model's tensors, by their names in the model, and the names of tensors that transformers merges into others."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    conversions = get_model_conversion_mapping(model)
    renamings = [c for c in conversions if isinstance(c, WeightRenaming)]
    converters = [c for c in conversions if isinstance(c, WeightConverter)]
    there = model.state_dict()
    records: dict[str, TensorRecord] = {}
    merged: list[str] = []
    for record in checkpoint:
        if record.is_training_state:
            continue
        name, pattern = rename_source_key(record.name, renamings, converters, model.base_model_prefix, there)
        if name not in there and record.name in there:
            name, pattern = record.name, None
        if pattern is not None:
            merged.append(record.name)
        elif name in there:
            records[name] = record
    for target, source in getattr(model, "all_tied_weights_keys", {}).items():
        if target not in records and source in records:
            records[target] = records[source]
        elif source not in records and target in records:
            records[source] = records[target]
    for name, record in records.items():
        if tuple(there[name].shape) != record.shape:
            raise CheckpointError(
                checkpoint.path,
                f"does not fit the model: {record.name} is {list(record.shape)}, the model's {name} is {list(there[name].shape)}",
            )
    return records, merged


def _untie(model: nn.Module, replaced: set[str]) -> None:
    """Removes the ties of replaced layers, which share their weight already, so that transformers ties only the others."""
    ties = getattr(model, "all_tied_weights_keys", {})
    model.all_tied_weights_keys = {t: s for t, s in ties.items() if t not in replaced and s not in replaced}
    for path, module in model.named_modules():
        own = getattr(module, "_tied_weights_keys", None)
        if isinstance(own, dict):
            prefix = f"{path}." if path else ""
            kept = {t: s for t, s in own.items() if prefix + t not in replaced and prefix + s not in replaced}
            if len(kept) < len(own):
                module._tied_weights_keys = kept


def _with_weights_file(config: Any) -> Any:
    name = getattr(config, "name_or_path", "") or ""
    shards = [SHARD]
    manifest = Path(name) / NAME if Path(name).is_dir() else _fetched(config, NAME)
    if manifest is not None and manifest.is_file():
        if Path(name).is_dir():
            MPOCheckpoint(name, companions=False)  # raises if the checkpoint is not valid
        shards = json.loads(manifest.read_bytes()).get("shards", shards)
    config.transformers_weights = SHARD if len(shards) == 1 else f"{SHARD}.index.json"
    return config


def _fetched(config: Any, name: str) -> Path | None:
    """A file of a model that is in the cache of a hub; None if the model does not have it."""
    from transformers.utils.hub import cached_file

    if not config.name_or_path:
        return None
    revision = getattr(config, "_commit_hash", None)
    found = cached_file(config.name_or_path, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def config_text(config: Any) -> str:
    """The text of a model's ``config.json``; its first member is the quantisation method, as ``mpo convert`` writes it."""
    members = json.loads(config.to_json_string())
    method = members.pop("quantization_config", None) or {"quant_method": METHOD}
    members.pop("transformers_weights", None)
    text = json.dumps(members, indent=2, sort_keys=True)
    rest = text[1:].lstrip("\n") if len(members) else "}"
    return '{\n  "quantization_config": ' + json.dumps(method) + (",\n" if members else "\n") + rest + "\n"


def register(modeling_utils: ModuleType) -> None:
    """Registers the method ``mpo`` with transformers, and wraps the loading and saving that quantisers can't change."""
    auto.register_quantization_config(METHOD)(MPOConfig)
    auto.register_quantizer(METHOD)(MPOQuantizer)
    auto.LOADING_ATTRIBUTES_CONFIG_TYPES = (*auto.LOADING_ATTRIBUTES_CONFIG_TYPES, MPOConfig)

    model_class = modeling_utils.PreTrainedModel
    load, save = model_class._load_pretrained_model, model_class.save_pretrained

    @functools.wraps(load)
    def load_pretrained_model(
        model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, *args: Any, **kwargs: Any
    ) -> Any:
        quantizer = load_config.hf_quantizer
        if isinstance(quantizer, MPOQuantizer) and quantizer.values is not None:
            state_dict, checkpoint_files = quantizer.values, None
        return load(model, state_dict, checkpoint_files, load_config, *args, **kwargs)

    @functools.wraps(save)
    def save_pretrained(self: Any, save_directory: Any, is_main_process: bool = True, **kwargs: Any) -> None:
        is_adapter = getattr(self, "_hf_peft_config_loaded", False)
        if is_adapter or not isinstance(getattr(self, "hf_quantizer", None), MPOQuantizer):
            return save(self, save_directory, is_main_process, **kwargs)
        if kwargs.get("push_to_hub"):
            raise ValueError("push_to_hub is not supported for MPO checkpoints; save to a folder and upload that")
        if is_main_process:
            self.config.dtype = str(self.dtype).removeprefix("torch.")
            self.config.architectures = [type(self).__name__]
            texts = {"config.json": config_text(self.config)}
            code = Path(self.mpo_source.path) / REMOTE_CODE
            if code.is_file():
                texts[REMOTE_CODE] = code.read_text("utf-8")
            if self.can_generate():
                texts["generation_config.json"] = self.generation_config.to_json_string(ignore_metadata=True)
            save_into(self, save_directory, texts)

    model_class._load_pretrained_model = staticmethod(load_pretrained_model)
    model_class.save_pretrained = save_pretrained
