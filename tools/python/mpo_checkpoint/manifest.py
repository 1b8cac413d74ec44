"""The manifest of an MPO checkpoint: what FORMAT.md says of it, checked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import CheckpointError
from .packing import packing_problem
from .safetensors_file import BITS, FLOATING, element_bytes

NAME = "manifest.json"
FORMAT = "mpo-checkpoint"
VERSION = "1.0"
_BLANK_DIGEST = "0" * 64


@dataclass
class TensorRecord:
    """One tensor of the source: a view of its JSON object, whose members were checked.

    Attributes:
        raw: the object itself, with members this reader does not know.
    """

    raw: dict[str, Any]

    @property
    def name(self) -> str:
        return self.raw["name"]

    @property
    def kind(self) -> str:
        """``mpo``, ``dense`` or ``tied``."""
        return self.raw["kind"]

    @property
    def dtype(self) -> str:
        return self.raw["dtype"]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.raw["shape"])

    @property
    def tied_to(self) -> str | None:
        return self.raw.get("tied_to") if self.kind == "tied" else None

    @property
    def matrix_shape(self) -> tuple[int, int]:
        return tuple(self.raw["matrix_shape"])

    @property
    def row_factors(self) -> tuple[int, ...]:
        return tuple(self.raw["row_factors"])

    @property
    def column_factors(self) -> tuple[int, ...]:
        return tuple(self.raw["column_factors"])

    @property
    def bonds(self) -> tuple[int, ...]:
        return tuple(self.raw["bonds"])

    @property
    def central(self) -> int:
        return self.raw["central"]

    @property
    def core_shapes(self) -> list[tuple[int, int, int, int]]:
        """``[d_k, i_k, j_k, d_{k+1}]`` of every core."""
        bonds = (1, *self.bonds, 1)
        return list(zip(bonds, self.row_factors, self.column_factors, bonds[1:]))

    @property
    def scales_shape(self) -> tuple[int, ...] | None:
        """The shape of the scales of a central core of I8."""
        shape = self.raw.get("central_scales") if self.kind == "mpo" else None
        return None if shape is None else tuple(shape)

    @property
    def packed(self) -> dict[str, dict[str, Any]]:
        """What is said of the entries that are stored packed, by name."""
        return {member["name"]: member for member in self.raw.get("packed") or []}

    @property
    def entries(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype and shape of the entries that belong to the tensor, unpacked, by name: cores, then scales."""
        if self.kind == "dense":
            return {self.name: (self.dtype, self.shape)}
        if self.kind == "tied":
            return {}
        names = [f"{self.name}.cores.{k}" for k in range(len(self.core_shapes))]
        entries = {name: (self.raw["core_dtype"], shape) for name, shape in zip(names, self.core_shapes)}
        if self.scales_shape is not None:
            central = names[self.central]
            entries[central] = ("I8", entries[central][1])
            entries[f"{central}.scales"] = ("F32", self.scales_shape)
        return entries

    def problem(self) -> str | None:
        """What contradicts the format; None if nothing does."""
        if self.kind not in ("mpo", "dense", "tied"):
            return f"is of an unknown kind '{self.kind}'; update mpo_checkpoint"
        if self.dtype not in BITS:
            return f"has an unknown dtype '{self.dtype}'"
        if not _are_sizes(self.raw["shape"], least=0) or prod(self.shape) >= 2**57:
            return f"has the shape {self.raw['shape']}, which no tensor has"
        if self.kind == "tied":
            return None if isinstance(self.raw.get("tied_to"), str) else "is tied to nothing"
        if self.kind == "mpo" and (problem := self._mpo_problem()):
            return problem
        return packing_problem(self.raw.get("packed") or [], self.entries)

    def _mpo_problem(self) -> str | None:
        lists = ("matrix_shape", "padded_shape", "row_factors", "column_factors", "bonds")
        if bad := [name for name in lists if not _are_sizes(self.raw.get(name), least=1)]:
            return f"has no valid '{bad[0]}'"
        rows, columns = self.row_factors, self.column_factors
        if len(rows) != len(columns) or len(rows) < 2 or len(self.bonds) != len(rows) - 1:
            return "has row factors, column factors and bonds of different numbers of sites"
        if len(self.matrix_shape) != 2 or prod(self.matrix_shape) != prod(self.shape):
            return f"has a matrix {list(self.matrix_shape)} of another size than its shape {list(self.shape)}"
        padded = [prod(rows), prod(columns)]
        if self.raw["padded_shape"] != padded or any(p < m for p, m in zip(padded, self.matrix_shape)):
            return f"has a padded shape {self.raw['padded_shape']} that its factors or its matrix contradict"
        if max(padded) >= 2**31:
            return f"has a padded shape {padded} with a side of 2^31 or more"
        if self.raw.get("core_dtype") not in FLOATING or self.dtype not in FLOATING:
            return f"is {self.dtype} with cores of {self.raw.get('core_dtype')}; both must be floating point"
        if not isinstance(self.raw.get("central"), int) or not 0 <= self.central < len(rows):
            return f"has no central core '{self.raw.get('central')}'"
        for left, i, j, right in self.core_shapes:
            if right > left * i * j or left > i * j * right:
                return f"has bonds {list(self.bonds)}, more than its factors allow"
        scales, core = self.raw.get("central_scales"), self.core_shapes[self.central]
        if scales is not None and not (
            _are_sizes(scales, least=1) and len(scales) == 4 and all(s in (1, c) for s, c in zip(scales, core))
        ):
            return f"has scales {scales} that do not broadcast to its central core {list(core)}"
        return None


@dataclass
class Manifest:
    """``manifest.json``, checked: a view of its object."""

    path: Path
    raw: dict[str, Any]
    tensors: list[TensorRecord]

    @property
    def shards(self) -> list[str]:
        return [file["name"] for file in self.raw["shards"]]

    @property
    def companions(self) -> list[str]:
        return [file["name"] for file in self.raw["companions"]]

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads and checks the manifest in a folder, and that the files it lists are there.

        Raises:
            CheckpointError: for what is no manifest, was changed, or contradicts itself or the folder.
        """
        path = folder / NAME
        if not path.is_file():
            raise CheckpointError(folder, f"is no MPO checkpoint, a folder with a {NAME}; 'mpo convert' makes one")
        content = path.read_bytes()
        try:
            raw = json.loads(content)
        except ValueError:
            raise CheckpointError(path, "is not valid JSON") from None
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise CheckpointError(path, "is not the manifest of an MPO checkpoint")
        version = str(raw.get("version"))
        if version.partition(".")[0] != VERSION.partition(".")[0]:
            raise CheckpointError(path, f"has version {version}; this reads version {VERSION}: update mpo_checkpoint")
        digest = str(raw.get("manifest_sha256"))
        if len(digest) != 64 or content.count(digest.encode()) != 1 or _digest(content, digest) != digest:
            raise CheckpointError(path, "was changed after it was written: its SHA-256 is another")
        try:
            manifest = cls(path, raw, [TensorRecord(dict(tensor)) for tensor in raw["tensors"]])
            manifest._check()
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(path, f"lacks a member, or has one of a wrong type ({error})") from None
        return manifest

    def _check(self) -> None:
        records: dict[str, TensorRecord] = {}
        for record in self.tensors:
            if problem := record.problem():
                raise CheckpointError(self.path, f"{record.name} {problem}")
            if record.name in records:
                raise CheckpointError(self.path, f"{record.name} has two records")
            records[record.name] = record
        for record in self.tensors:
            if record.tied_to is None:
                continue
            target = records.get(record.tied_to)
            if target is None or target.kind == "tied":
                raise CheckpointError(self.path, f"{record.name} is tied to {record.tied_to}, which holds no elements")
            if (target.dtype, target.shape) != (record.dtype, record.shape):
                raise CheckpointError(self.path, f"{record.name} is tied to {record.tied_to}, of other dtype or shape")
        if not self.shards:
            raise CheckpointError(self.path, "lists no shards")
        for file in self.raw["shards"] + self.raw["companions"]:
            _check_file(self.path.parent, file["name"], file["bytes"])

    def check_checksums(self) -> None:
        """Reads every file whole and compares its SHA-256 with the manifest's."""
        for file in self.raw["shards"] + self.raw["companions"]:
            path = self.path.parent / file["name"]
            if fingerprint(path, file["name"])["sha256"] != file["sha256"]:
                raise CheckpointError(path, "was changed after it was written: its SHA-256 is another")


def write_manifest(path: Path, raw: dict[str, Any]) -> None:
    """Writes a manifest, its digest filled in."""
    raw = {**raw, "manifest_sha256": _BLANK_DIGEST}
    blank = json.dumps(raw, indent=2, sort_keys=True, ensure_ascii=False).encode()
    digest = hashlib.sha256(blank).hexdigest()
    path.write_bytes(blank.replace(f'"manifest_sha256": "{_BLANK_DIGEST}"'.encode(), f'"manifest_sha256": "{digest}"'.encode(), 1))


def totals(records: list[TensorRecord]) -> dict[str, Any]:
    """The sums over a checkpoint's records, of which none is packed."""
    entries = [entry for record in records for entry in record.entries.values()]
    before = sum(prod(record.shape) for record in records)
    counts = {record.name: _parameter_count(record) for record in records}
    stored = sum(counts.values())
    matrices = [record for record in records if record.kind == "mpo"]
    result = {
        "parameters_before": before,
        "parameters_stored": stored,
        "parameters_trainable": sum(counts[record.name] for record in records if record.dtype in FLOATING)
        - sum(prod(record.core_shapes[record.central]) for record in matrices),
        "bytes_before": sum(element_bytes(record.dtype, record.shape) for record in records),
        "bytes_stored": sum(element_bytes(dtype, shape) for dtype, shape in entries),
        "ratio": stored / max(1, before),
    }
    measured = [(r.raw.get("relative_error"), r.raw.get("norm")) for r in matrices]
    if all(error is not None and norm is not None for error, norm in measured):
        norms = sum(norm**2 for _, norm in measured)
        errors = sum((error * norm) ** 2 for error, norm in measured)
        result["relative_error"] = (errors / norms) ** 0.5 if norms else 0.0
    return result


def _parameter_count(record: TensorRecord) -> int:
    """Elements that are stored of a tensor, but for scales."""
    shapes = record.core_shapes if record.kind == "mpo" else [shape for _, shape in record.entries.values()]
    return sum(map(prod, shapes))


def fingerprint(path: Path, name: str) -> dict[str, Any]:
    """The ``file`` object of a file: name, bytes, SHA-256."""
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


def _are_sizes(value: Any, least: int) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= least for size in value)


def _check_file(folder: Path, name: str, size: int) -> None:
    """A listed file is a regular file inside the folder, reached through no link, and of its size."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name or PurePosixPath(name).is_absolute():
        raise CheckpointError(folder / NAME, f"names a file outside the folder: {name!r}")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise CheckpointError(path, "is a symbolic link, not a file of the checkpoint")
    if not path.is_file():
        raise CheckpointError(path, "is missing; copy the whole folder or convert again")
    if path.stat().st_size != size:
        raise CheckpointError(path, f"has {path.stat().st_size} bytes, the manifest says {size}; copy it again")
