"""The manifest of an MPO checkpoint, read and checked against FORMAT.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import CheckpointError, Contradiction
from .records import CoreRecord, OperatorRecord, TensorRecord
from .safetensors_file import FLOATING, element_bytes

NAME = "manifest.json"
FORMAT = "mpo-checkpoint"
VERSION = "2.0"
_BLANK_DIGEST = "0" * 64
_FREE_EXPANSION = 1 << 28
_EXPANSION = 1 << 16
"""A matrix may have at most `_FREE_EXPANSION` elements plus `_EXPANSION` for each value that is stored of it."""


@dataclass
class Manifest:
    """``manifest.json``, checked.

    Attributes
    ----------
    raw
        the JSON object, including members that this reader does not know.
    tensors, operators, cores
        the records by name, in the order of the manifest; tensors are in the order of the source.
    """

    path: Path
    raw: dict[str, Any]
    tensors: dict[str, TensorRecord]
    operators: dict[str, OperatorRecord]
    cores: dict[str, CoreRecord]

    @property
    def shards(self) -> list[str]:
        return [file["name"] for file in self.raw["shards"]]

    @property
    def companions(self) -> list[str]:
        return [file["name"] for file in self.raw["companions"]]

    @classmethod
    def read(cls, folder: Path, companions: bool = True) -> Manifest:
        """Reads and checks the manifest in a folder, and checks that the files it lists exist and have their sizes.

        Parameters
        ----------
        companions
            False: checks the shards only.

        Raises
        ------
        CheckpointError
            if there is no manifest, if it was changed, or if it contradicts itself, FORMAT.md or the folder.
        """
        path = folder / NAME
        if not path.is_file():
            raise CheckpointError(folder, f"is not an MPO checkpoint, a folder with a {NAME}; make one with 'mpo convert'")
        content = path.read_bytes()
        try:
            raw = json.loads(content)
        except (ValueError, RecursionError):
            raise CheckpointError(path, "is not valid JSON; copy the checkpoint again, or convert the model again") from None
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise CheckpointError(path, f"is not the manifest of an MPO checkpoint: its 'format' is not '{FORMAT}'")
        version = str(raw.get("version"))
        if version.partition(".")[0] == "1":
            raise CheckpointError(
                path, f"has version {version}: it was made by an unreleased version of mpo; convert the model again"
            )
        if version.partition(".")[0] != VERSION.partition(".")[0]:
            raise CheckpointError(path, f"has version {version}; this reads version {VERSION}: update mpo_checkpoint")
        digest = str(raw.get("manifest_sha256"))
        if len(digest) != 64 or content.count(digest.encode()) != 1 or _digest(content, digest) != digest:
            raise CheckpointError(
                path, "was changed after it was written: its SHA-256 differs; convert the model again"
            )
        try:
            cores = _by_name("core", map(CoreRecord.parse, raw["cores"]))
            operators = _by_name("operator", map(OperatorRecord.parse, raw["operators"]))
            tensors = _by_name("tensor", (TensorRecord.parse(tensor, operators) for tensor in raw["tensors"]))
            manifest = cls(path, raw, tensors, operators, cores)
            manifest._check(companions)
        except Contradiction as contradiction:
            raise CheckpointError(path, str(contradiction)) from None
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(path, f"lacks a member, or has one of a wrong type ({error}); convert the model again") from None
        return manifest

    def entries(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype and shape of all entries in the shards, by name; a packed entry is a vector of bytes.

        Raises
        ------
        Contradiction
            if two entries have one name.
        """
        entries: dict[str, tuple[str, tuple[int, ...]]] = {}
        records: list[TensorRecord | CoreRecord] = [*self.tensors.values(), *self.cores.values()]
        for record in records:
            for name, entry in record.entries.items():
                if name in entries:
                    raise Contradiction(f"{name} is the name of two entries")
                entries[name] = ("U8", (record.packed[name]["bytes"],)) if name in record.packed else entry
        return entries

    def _check(self, companions: bool) -> None:
        for tensor in self.tensors.values():
            if tensor.tied_to is None:
                continue
            target = self.tensors.get(tensor.tied_to)
            if target is None or target.kind == "tied":
                raise Contradiction(f"{tensor.name} is tied to {tensor.tied_to}, which holds no elements")
            if (target.dtype, target.shape) != (tensor.dtype, tensor.shape):
                raise Contradiction(f"{tensor.name} is tied to {tensor.tied_to}, of other dtype or shape")
        if both := self.tensors.keys() & self.cores.keys():
            raise Contradiction(f"'{min(both)}' is the name of both a tensor and a core; names must be unique")
        for operator in self.operators.values():
            self._check_cores(operator)
        for kind, there, named in (
            ("operator", self.operators, (name for tensor in self.tensors.values() for name in tensor.operators)),
            ("core", self.cores, (name for operator in self.operators.values() for name in operator.core_names)),
        ):
            if unused := there.keys() - set(named):
                raise Contradiction(f"the {kind} {min(unused)} is not used by anything")
        self._check_expansion()
        self.entries()
        if not self.shards:
            raise Contradiction("the manifest lists no shards")
        for file in self.raw["shards"] + (self.raw["companions"] if companions else []):
            _check_file(self.path.parent, file["name"], file["bytes"])

    def _check_cores(self, operator: OperatorRecord) -> None:
        where = f"the operator {operator.name}"
        for name, role, shape in operator.places():
            core = self.cores.get(name)
            if core is None:
                raise Contradiction(f"{where} names the core {name}, which is not there")
            if (core.role, core.shape) != (role, shape):
                raise Contradiction(
                    f"{where} names the core {name} as its {role} of shape {list(shape)}, but the core has the role {core.role} "
                    f"and the shape {list(core.shape)}"
                )
        if operator.gauge == "compact":
            for site, name in enumerate(operator.cores):
                if self.cores[name].encoding.pivots != operator.pivot_side(site):
                    raise Contradiction(
                        f"{where} is compact, but its core {name} has no pivots on the side of the centre"
                    )

    def _check_expansion(self) -> None:
        def check(what: str, elements: int, operators: Iterable[str]) -> None:
            named = {core for name in operators for core in self.operators[name].cores}
            stored = sum(self.cores[core].value_count for core in named)
            if elements > _FREE_EXPANSION + _EXPANSION * stored:
                raise Contradiction(
                    f"{what} would expand {stored} stored values to {elements} elements; at most 2^28 + 2^16 per value are allowed"
                )

        for operator in self.operators.values():
            largest = max(prod(operator.padded_shape), *map(prod, operator.core_shapes))
            check(f"the operator {operator.name}", largest, [operator.name])
        for tensor in self.tensors.values():
            if tensor.kind == "mpo":
                check(tensor.name, prod(tensor.matrix_shape), tensor.operators)

    def check_checksums(self) -> None:
        """Reads every file and compares its SHA-256 with the manifest's.

        Raises
        ------
        CheckpointError
            for the first file that differs.
        """
        for file in self.raw["shards"] + self.raw["companions"]:
            path = self.path.parent / file["name"]
            if fingerprint(path, file["name"])["sha256"] != file["sha256"]:
                raise CheckpointError(
                    path, "was changed after it was written: its SHA-256 differs from the manifest's; copy it again or convert again"
                )


def _by_name(kind: str, records: Iterable[Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for record in records:
        if record.name in result:
            raise Contradiction(f"{record.name} is the name of two {kind}s")
        result[record.name] = record
    return result


def write_manifest(path: Path, raw: dict[str, Any]) -> None:
    """Writes a manifest with its own SHA-256 filled in."""
    raw = {**raw, "manifest_sha256": _BLANK_DIGEST}
    blank = json.dumps(raw, indent=2, sort_keys=True, ensure_ascii=False).encode()
    digest = hashlib.sha256(blank).hexdigest()
    path.write_bytes(
        blank.replace(f'"manifest_sha256": "{_BLANK_DIGEST}"'.encode(), f'"manifest_sha256": "{digest}"'.encode(), 1)
    )


def totals(tensors: Mapping[str, TensorRecord], cores: Mapping[str, CoreRecord]) -> dict[str, Any]:
    """The member ``totals`` of a manifest: sums over tensors and cores, none of which is packed. Each core counts once.

    Tensors of training state count only in the bytes.
    """
    records: list[TensorRecord | CoreRecord] = [*tensors.values(), *cores.values()]
    model = [tensor for tensor in tensors.values() if not tensor.is_training_state]
    dense = [tensor for tensor in model if tensor.kind == "dense"]
    before = sum(prod(tensor.shape) for tensor in model)
    stored = sum(prod(tensor.shape) for tensor in dense) + sum(core.value_count for core in cores.values())
    result = {
        "parameters_before": before,
        "parameters_stored": stored,
        "parameters_trainable": sum(prod(t.shape) for t in dense if t.dtype in FLOATING and len(t.shape) < 2)
        + sum(prod(core.shape) for core in cores.values() if core.role == "auxiliary" and core.encoding.kind != "grouped"),
        "bytes_before": sum(element_bytes(tensor.dtype, tensor.shape) for tensor in tensors.values()),
        "bytes_stored": sum(element_bytes(*entry) for record in records for entry in record.entries.values()),
        "ratio": stored / max(1, before),
    }
    if len(model) < len(tensors):
        result["parameters_training_state"] = sum(prod(t.shape) for t in tensors.values() if t.is_training_state)
    measured = [(t.raw.get("relative_error"), t.raw.get("norm")) for t in tensors.values() if t.kind == "mpo"]
    if all(error is not None and norm is not None for error, norm in measured):
        norms = sum(norm**2 for _, norm in measured)
        errors = sum((error * norm) ** 2 for error, norm in measured)
        result["relative_error"] = (errors / norms) ** 0.5 if norms else 0.0
    return result


def fingerprint(path: Path, name: str) -> dict[str, Any]:
    """The JSON object of a file in a manifest: name, bytes, SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _streamed_digest(file)
    return {"name": name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _streamed_digest(file: Any) -> Any:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest


def _digest(content: bytes, recorded: str) -> str:
    return hashlib.sha256(content.replace(recorded.encode(), _BLANK_DIGEST.encode())).hexdigest()


def _check_file(folder: Path, name: str, size: int) -> None:
    """Raises CheckpointError unless the file is a regular file inside the folder, without links in its path, and has its size."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name or PurePosixPath(name).is_absolute():
        raise CheckpointError(folder / NAME, f"names a file outside the folder: {name!r}; don't use this checkpoint")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise CheckpointError(path, "is a symbolic link; copy the file itself into the folder")
    if not path.is_file():
        raise CheckpointError(path, "is missing; copy the whole folder or convert again")
    if path.stat().st_size != size:
        raise CheckpointError(path, f"has {path.stat().st_size} bytes, but the manifest says {size}; copy it again")
