"""Writes a model that was loaded from an MPO checkpoint back as one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import __version__
from .checkpoint import MPOCheckpoint
from .errors import CheckpointError
from .loading import LoadedCheckpoint, dense_tensors
from .manifest import NAME, TensorRecord, fingerprint, totals, write_manifest
from .modules import MPOWeight
from .safetensors_file import Entry, write_entries
from .torch_entries import entry_of, tensor_of

SHARD = "tensors.safetensors"
_INDEX = SHARD + ".index.json"
_ERRORS = ("relative_error", "metric_relative_error")


def save(model: nn.Module, path: Path | str, *, force: bool = False) -> None:
    """Writes a model that `load_into` or `from_pretrained` made as an MPO checkpoint.

    Everything is written in the dtypes of the checkpoint it was loaded from, which must still be there: what the model
    does not have is taken from it, its companions are carried over. Errors against the source stay in the manifest for
    matrices whose cores did not change and go for the others. Tensors the checkpoint did not have (a new head) are
    added under the model's names, and the configuration is the model's then.

    Nothing is packed. A quantised central core stays as it is when it was not trained, and has the dtype of the other
    cores when it was.

    Args:
        path: the folder to write; it appears whole or not at all.
        force: whether a checkpoint that is there already is replaced.

    Raises:
        CheckpointError: where that can't be done.
    """
    path = Path(path)
    loaded: LoadedCheckpoint | None = getattr(model, "mpo_source", None)
    if loaded is None:
        raise CheckpointError(path, "the model was not loaded from an MPO checkpoint; see load_into")
    checkpoint = MPOCheckpoint(loaded.path)
    if checkpoint.manifest.raw["manifest_sha256"] != loaded.digest:
        raise CheckpointError(loaded.path, "is another checkpoint now than the one the model was loaded from")
    if path.exists():
        if not force:
            raise CheckpointError(path, "is there already; force=True replaces it")
        if not (path / NAME).is_file():
            raise CheckpointError(path, "is no MPO checkpoint and is not replaced")

    records, entries, new = _contents(model, checkpoint, loaded)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        write_entries(temporary / SHARD, entries, {"format": "pt"})
        companions = [name for name in checkpoint.manifest.companions if name != _INDEX]
        for name in companions:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint.path / name, temporary / name)
        if new and "config.json" in companions and hasattr(model, "config"):
            (temporary / "config.json").write_text(model.config.to_json_string(), "utf-8")
        manifest: dict[str, Any] = {
            **checkpoint.manifest.raw,
            "version": "1.0",
            "generator": f"mpo_checkpoint {__version__}",
            "shards": [fingerprint(temporary / SHARD, SHARD)],
            "companions": [fingerprint(temporary / name, name) for name in companions],
            "totals": totals(records),
            "tensors": [record.raw for record in records],
        }
        write_manifest(temporary / NAME, manifest)
        for file in filter(Path.is_file, temporary.rglob("*")):
            _flush(file)
        _replace(path, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _contents(
    model: nn.Module, checkpoint: MPOCheckpoint, loaded: LoadedCheckpoint
) -> tuple[list[TensorRecord], dict[str, Entry], bool]:
    """Records and entries of the new checkpoint, and whether it has tensors the old one had not."""
    weights = {
        loaded.names[name]: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, MPOWeight)
    }
    dense: dict[str, Tensor] = {}
    added: dict[str, Tensor] = {}
    for tensor, names in dense_tensors(model).items():
        known = [loaded.names[name] for name in names if name in loaded.names]
        dense.update(dict.fromkeys(known, tensor))
        if not known:
            added[names[0]] = tensor

    records: list[TensorRecord] = []
    entries: dict[str, Entry] = {}
    for old in checkpoint:
        record, parts = _written(old, checkpoint, weights, dense)
        record = _without(record, "packed")
        records.append(record)
        entries.update(zip(record.entries, parts))
    if added and (checkpoint.manifest.raw.get("source") or {}).get("skeleton"):
        raise CheckpointError(checkpoint.path, f"came from HDF5, which has no place for {', '.join(added)}")
    for name, tensor in added.items():
        entry = entry_of(tensor)
        record = TensorRecord({"name": name, "kind": "dense", "dtype": entry.dtype, "shape": list(entry.shape)})
        records.append(record)
        entries[name] = entry
    return records, entries, bool(added)


def _written(
    old: TensorRecord, checkpoint: MPOCheckpoint, weights: dict[str, MPOWeight], dense: dict[str, Tensor]
) -> tuple[TensorRecord, list[Entry]]:
    """A tensor's record and entries now."""
    holder = checkpoint.holder(old)
    if old.name in weights:
        if old.kind == "tied":
            return old, []  # tied tensors share their cores
        shapes = [tuple(core.shape) for core in weights[old.name].cores]
        if shapes != old.core_shapes:
            raise CheckpointError(old.name, f"has cores {shapes} now, {old.core_shapes} when it was loaded")
        present = checkpoint.entries(old)
        parts = [entry_of(core, entry.dtype) for core, entry in zip(weights[old.name].cores, present)]
        if all(_same(a, b) for a, b in zip(parts, present)):
            return old, checkpoint.stored_entries(old)
        if old.scales_shape is not None and not _same(parts[old.central], present[old.central]):
            parts[old.central] = entry_of(weights[old.name].cores[old.central], old.raw["core_dtype"])
            return _without(old, "central_scales", *_ERRORS), parts
        stored = checkpoint.stored_entries(old)
        if old.scales_shape is not None:
            parts = [*parts[: old.central], stored[old.central], *parts[old.central + 1 :], stored[-1]]
        return _without(old, *_ERRORS), parts
    if old.name not in dense:
        return old, checkpoint.stored_entries(old)
    value = entry_of(dense[old.name], old.dtype)
    if old.kind == "mpo":  # it was restored for a layer that has no counterpart
        restored = entry_of(_restored(checkpoint, old), old.dtype)
        if _same(value, restored):
            return old, checkpoint.stored_entries(old)
    elif old.kind == "tied":
        target = dense.get(holder.name)
        if target is None and holder.name in weights:
            is_tied = _same(value, entry_of(weights[holder.name].matrix().reshape(old.shape), old.dtype))
        else:
            now = _restored(checkpoint, holder) if target is None else target
            is_tied = _same(value, entry_of(now, old.dtype))
        if is_tied:
            return old, []
    members = {key: old.raw[key] for key in ("name", "dtype", "shape", "orientation") if key in old.raw}
    return TensorRecord({**members, "kind": "dense"}), [value]


def _restored(checkpoint: MPOCheckpoint, record: TensorRecord) -> Tensor:
    if record.kind == "dense":
        return tensor_of(checkpoint.entries(record)[0])
    return torch.from_numpy(checkpoint.tensor(record.name))


def _without(record: TensorRecord, *members: str) -> TensorRecord:
    return TensorRecord({key: value for key, value in record.raw.items() if key not in members})


def _same(a: Entry, b: Entry) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool((a.data == b.data).all())


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _replace(path: Path, temporary: Path) -> None:
    """Puts a folder in the place of another."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        os.replace(path, old)
    os.replace(temporary, path)
    shutil.rmtree(old, ignore_errors=True)
