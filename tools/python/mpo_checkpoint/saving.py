"""Writes a model that was loaded from an MPO checkpoint as an MPO checkpoint again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from . import __version__
from .checkpoint import MPOCheckpoint
from .contents import Contents, Gauge
from .errors import CheckpointError
from .load_report import LoadedCheckpoint
from .manifest import NAME, VERSION, fingerprint, totals, write_manifest
from .records import GAUGES
from .safetensors_file import write_entries

SHARD = "tensors.safetensors"
_INDEX = SHARD + ".index.json"


def save(model: nn.Module, path: Path | str, *, gauge: Gauge | None = None, force: bool = False) -> None:
    """Writes a model that `load_into` or `from_pretrained` made as an MPO checkpoint.

    Everything is written in the encodings and dtypes of the checkpoint that the model was loaded from. That checkpoint must still
    exist: its companion files, and tensors that the model does not have, are copied from it. Tensors that it does not have (a
    new head) are added under the model's names, and then ``config.json`` is the model's. An adapter becomes one more term of its
    tensor's blocks; if the tensor was dense, it becomes an operator of full rank, with the same numbers, plus the adapter.

    Tensors and cores that did not change are written bit for bit. Integers that changed are rounded to nearest. The manifest
    keeps the errors against the source only for tensors whose cores did not change. Nothing is packed.

    Parameters
    ----------
    model
        a model that was loaded from an MPO checkpoint.
    path
        the folder to write; it appears whole or not at all.
    gauge
        the gauge of the operators: ``"compact"`` (no redundant number is stored), ``"canonical"`` (isometries beside the central
        core) or ``"spectral"`` (canonical, with separate singular values). By default each operator keeps its gauge, and the
        cores of canonical operators are written as they are after training, so that frozen cores stay the same bit for bit.
        Operators that share cores always keep their gauge; if their cores changed, these are written whole.
    force
        whether to replace a checkpoint that exists.

    Raises
    ------
    CheckpointError
        if the model was not loaded from an MPO checkpoint, if that checkpoint changed, if ``path`` exists, or if the format has
        no place for something in the model.
    ValueError
        if there is no such gauge.
    """
    path = Path(path)
    if gauge is not None and gauge not in GAUGES:
        raise ValueError(f"gauge is '{gauge}'; it must be {', '.join(GAUGES)} or None")
    source = _source(model, path)
    if path.exists():
        if not force:
            raise CheckpointError(path, "exists; pass force=True to replace it")
        if not (path / NAME).is_file():
            raise CheckpointError(path, "is not an MPO checkpoint, so it is not replaced; give another path")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(model, source, temporary, gauge)
        _replace(path, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_into(model: nn.Module, path: Path | str, texts: dict[str, str]) -> None:
    """Writes a model as `save` does, but into a folder that may have other files. The manifest is written last.

    Companion files, such as those of the tokenizer, are not copied; the caller writes them.

    Parameters
    ----------
    model
        a model that was loaded from an MPO checkpoint.
    path
        the folder, which is created if it does not exist.
    texts
        the contents of companion files, by name.

    Raises
    ------
    CheckpointError
        for the reasons of `save`, or if ``path`` is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise CheckpointError(path, "is a file; give the name of a folder")
    source = _source(model, path)
    path.mkdir(parents=True, exist_ok=True)
    temporary = path / f".mpo.{os.getpid()}"
    try:
        digest = _write(model, source, temporary, None, texts)
        old = json.loads((path / NAME).read_bytes()) if (path / NAME).is_file() else {}
        (path / NAME).unlink(missing_ok=True)
        for file in [*old.get("shards", []), *old.get("companions", [])]:
            (path / file["name"]).unlink(missing_ok=True)
        files = [file.relative_to(temporary) for file in temporary.rglob("*") if file.is_file()]
        for name in sorted(files, key=lambda name: name == Path(NAME)):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / name, path / name)
        if model.mpo_source.path.resolve() == path.resolve():
            model.mpo_source.digest = digest
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _source(model: nn.Module, path: Path) -> tuple[LoadedCheckpoint, MPOCheckpoint]:
    """The record of how a model was loaded, and its checkpoint.

    Raises
    ------
    CheckpointError
        if the model was not loaded from an MPO checkpoint or can't be saved, or if the checkpoint changed.
    """
    loaded: LoadedCheckpoint | None = getattr(model, "mpo_source", None)
    if loaded is None:
        raise CheckpointError(path, "the model was not loaded from an MPO checkpoint; load it with load_into or from_pretrained")
    if loaded.merged:
        raise CheckpointError(
            path,
            f"can't be written: transformers merged {loaded.merged[0]} and other tensors into tensors of another shape; save the "
            "model in another format",
        )
    checkpoint = MPOCheckpoint(loaded.path)
    if checkpoint.manifest.raw["manifest_sha256"] != loaded.digest:
        raise CheckpointError(loaded.path, "changed since the model was loaded from it; load the model again")
    return loaded, checkpoint


def _write(
    model: nn.Module,
    source: tuple[LoadedCheckpoint, MPOCheckpoint],
    folder: Path,
    gauge: Gauge | None,
    texts: dict[str, str] | None = None,
) -> str:
    """Writes a new folder with a loaded model; returns the SHA-256 that its manifest records of itself."""
    loaded, checkpoint = source
    contents = Contents(model, checkpoint, loaded, gauge)
    folder.mkdir(parents=True)
    write_entries(folder / SHARD, contents.entries, {"format": "pt"})
    companions = [
        name
        for name in checkpoint.manifest.companions
        if name != _INDEX and (texts is None or name.startswith("skeleton"))
    ]
    for name in companions:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(checkpoint.path / name, folder / name)
    if contents.added and "config.json" in companions and hasattr(model, "config"):
        (folder / "config.json").write_text(model.config.to_json_string(), "utf-8")
    for name, text in (texts or {}).items():
        (folder / name).write_text(text, "utf-8")
        companions.append(name)
    manifest: dict[str, Any] = {
        **checkpoint.manifest.raw,
        "version": VERSION,
        "generator": f"mpo_checkpoint {__version__}",
        "shards": [fingerprint(folder / SHARD, SHARD)],
        "companions": [fingerprint(folder / name, name) for name in companions],
        "totals": totals(contents.tensors, contents.cores),
        "tensors": [tensor.json() for tensor in contents.tensors.values()],
        "operators": [operator.json() for operator in contents.operators.values()],
        "cores": [core.json() for core in contents.cores.values()],
    }
    write_manifest(folder / NAME, manifest)
    for file in filter(Path.is_file, folder.rglob("*")):
        _flush(file)
    return json.loads((folder / NAME).read_bytes())["manifest_sha256"]


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _replace(path: Path, temporary: Path) -> None:
    """Renames a folder to a path, where it replaces another one."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        os.replace(path, old)
    os.replace(temporary, path)
    shutil.rmtree(old, ignore_errors=True)
