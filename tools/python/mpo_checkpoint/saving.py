"""Writes a model that was loaded from an MPO checkpoint back as one."""

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
from .loading import LoadedCheckpoint
from .manifest import NAME, VERSION, fingerprint, totals, write_manifest
from .records import GAUGES
from .safetensors_file import write_entries

SHARD = "tensors.safetensors"
_INDEX = SHARD + ".index.json"


def save(model: nn.Module, path: Path | str, *, gauge: Gauge | None = None, force: bool = False) -> None:
    """Writes a model that `load_into` or `from_pretrained` made as an MPO checkpoint.

    Everything is written in the encodings and dtypes of the checkpoint it was loaded from, which must still be there: what
    the model does not have is taken from it, its companions are carried over. Errors against the source stay in the
    manifest for tensors whose cores did not change and go for the others. Tensors the checkpoint did not have (a new head)
    are added under the model's names, and the configuration is the model's then. An adapter becomes one more term of its
    tensor's blocks; a tensor that was dense is then an operator of full rank, the same numbers, and the adapter.

    Nothing is packed. What did not change stays bit for bit; a core with scales that is written anew is rounded to the nearest
    again.

    Parameters
    ----------
    model
        with the attribute ``mpo_source``.
    path
        the folder to write; it appears whole or not at all.
    gauge
        of the operators: ``"compact"`` (no redundant number is stored), ``"canonical"`` (isometries beside the
        centre) or ``"spectral"`` (canonical, singular values apart). By default each operator keeps the gauge it had,
        and the cores of canonical ones are written as training left them, so that frozen ones stay bit for bit.
        Operators that share cores keep theirs in any case; where those changed, they are written whole.
    force
        whether a checkpoint that is there already is replaced.

    Raises
    ------
    CheckpointError
        where that can't be done.
    """
    path = Path(path)
    if gauge is not None and gauge not in GAUGES:
        raise ValueError(f"gauge is '{gauge}', not {', '.join(GAUGES)} or None")
    if path.exists():
        _source(model, path)
        if not force:
            raise CheckpointError(path, "exists; pass force=True to replace it")
        if not (path / NAME).is_file():
            raise CheckpointError(path, "is not an MPO checkpoint and is not replaced")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(model, temporary, gauge)
        _replace(path, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_into(model: nn.Module, path: Path | str, texts: dict[str, str]) -> None:
    """Writes a model as `save` does into a folder that may have other files, the manifest last.

    Companions are not carried over: whoever saves a model so writes its tokenizer and the like himself, before or after.

    Parameters
    ----------
    model
        with the attribute ``mpo_source``.
    path
        the folder; it is made where it is missing.
    texts
        files that are written instead, by name.

    Raises
    ------
    CheckpointError
        where that can't be done.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise CheckpointError(path, "is a file; give the name of a folder")
    path.mkdir(parents=True, exist_ok=True)
    temporary = path / f".mpo.{os.getpid()}"
    try:
        digest = _write(model, temporary, None, texts)
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
    """What a model was loaded from."""
    loaded: LoadedCheckpoint | None = getattr(model, "mpo_source", None)
    if loaded is None:
        raise CheckpointError(path, "the model was not loaded from an MPO checkpoint; load it with load_into or from_pretrained")
    if loaded.merged:
        raise CheckpointError(
            path, f"can't be written: transformers merged {loaded.merged[0]} and others into tensors of another shape"
        )
    checkpoint = MPOCheckpoint(loaded.path)
    if checkpoint.manifest.raw["manifest_sha256"] != loaded.digest:
        raise CheckpointError(loaded.path, "changed since the model was loaded from it; load the model again")
    return loaded, checkpoint


def _write(model: nn.Module, folder: Path, gauge: Gauge | None, texts: dict[str, str] | None = None) -> str:
    """Writes a folder anew; returns the digest of its manifest."""
    loaded, checkpoint = _source(model, folder)
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
    """Puts a folder in the place of another."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        os.replace(path, old)
    os.replace(temporary, path)
    shutil.rmtree(old, ignore_errors=True)
