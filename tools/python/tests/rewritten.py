"""Rewrites checkpoints so that arrays are integers of groups, and decodes them as FORMAT.md says, with NumPy only."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatchcase

import numpy as np
from mpo_checkpoint import MPOCheckpoint
from mpo_checkpoint.encoding import Encoding
from mpo_checkpoint.safetensors_file import FLOATING, read_entries, write_entries
from reference import file_object, sign

SHARD = "tensors.safetensors"


def regrouped(source, folder, chosen, columns=None):
    """A copy of a checkpoint in which some cores and dense tensors are integers.

    ``chosen``: bits and group by globs of names; the first that matches counts. ``columns``: of a row, by shape and encoding;
    by default the last axis of what is stored that has a size.
    """

    def encoding(name, shape, pivots):
        found = next((value for glob, value in chosen.items() if fnmatchcase(name, glob)), None)
        if found is None:
            return None
        width = columns(shape) if columns else max(s for s in shape[-2:] if s > 1) if len(shape) == 4 else shape[-1]
        return Encoding("grouped", "U8", None, pivots, *found, width)

    return _copied(source, folder, encoding)


def rewritten_as(source, folder, encoding):
    """A copy of a checkpoint in which cores and dense matrices have an encoding, made of the side of their pivots."""
    return _copied(source, folder, lambda name, shape, pivots: encoding(pivots) if len(shape) > 1 else None)


def _copied(source, folder, encoding_of):
    shutil.copytree(source, folder)
    checkpoint = MPOCheckpoint(source)
    manifest = json.loads((folder / "manifest.json").read_text())
    entries = {name: e for shard in checkpoint.manifest.shards for name, e in read_entries(source / shard).items()}
    for kind, records in (("cores", checkpoint.cores), ("tensors", checkpoint.tensors)):
        for raw in manifest[kind]:
            record, name = records[raw["name"]], raw["name"]
            if record.encoding is None or record.encoding.kind != "plain":
                continue
            if record.encoding.dtype not in FLOATING or (kind == "tensors" and record.kind != "dense"):
                continue
            old, own = record.encoding, checkpoint.entries(record)
            shape = old.value_shape(record.shape)
            encoding = encoding_of(name, shape, old.pivots)
            if encoding is None or not np.prod(shape):
                continue
            values = old.decode(own, name, record.shape, name).astype(np.float64)
            pivots = own[f"{name}.pivots"].numpy().astype(np.int64) if old.pivots else None
            encoding, new = encoding.encode(name, values, pivots)
            for entry in own:
                del entries[entry]
            entries |= new
            raw["encoding"] = encoding.json()
    for shard in checkpoint.manifest.shards:
        (folder / shard).unlink()
    write_entries(folder / SHARD, entries, {"format": "pt"})
    manifest["shards"] = [file_object(folder / SHARD)]
    for raw in manifest["cores"] + manifest["tensors"]:
        raw.pop("packed", None)
    sign(folder / "manifest.json", manifest)
    return folder


def values_of(entries, name, raw, rows):
    """The values ``[m, n]`` of an array's entries, decoded from the definition."""
    bits, group, columns = raw["bits"], raw["group"], raw["columns"]
    zero = 2 ** (bits - 1) if bits >= 4 else (2**bits - 1) / 2
    data, scales = entries[name].numpy(), entries[f"{name}.scales"].numpy().astype(np.float64)
    result = np.zeros((rows, columns))
    for i in range(rows):
        stream = np.unpackbits(data[i], bitorder="little")
        for k in range(columns):
            code = sum(int(bit) << place for place, bit in enumerate(stream[k * bits : (k + 1) * bits]))
            result[i, k] = (code - zero) * scales[i, k // group]
    return result
