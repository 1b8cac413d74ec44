"""A converter small enough to be obviously right: sequential SVD, and the manifest as FORMAT.md says it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


@dataclass
class Cut:
    """How a matrix is decomposed: factors of rows and columns, and the largest bond."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    bond: int = 10**9
    dtype: torch.dtype | None = None
    matrix_shape: tuple[int, int] | None = None


def full_bonds(rows, columns):
    sites = [i * j for i, j in zip(rows, columns)]
    return [min(prod(sites[:k]), prod(sites[k:])) for k in range(1, len(sites))]


def decompose(matrix, rows, columns, bond=10**9):
    """Cores ``[d, i, j, d']`` of a matrix, zero-padded to the products of the factors."""
    padded = np.zeros((prod(rows), prod(columns)))
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    n = len(rows)
    order = [axis for k in range(n) for axis in (k, n + k)]
    rest = padded.reshape(*rows, *columns).transpose(order).reshape(1, -1)
    cores, left = [], 1
    for i, j in zip(rows[:-1], columns[:-1]):
        u, s, v = np.linalg.svd(rest.reshape(left * i * j, -1), full_matrices=False)
        right = min(bond, len(s))
        cores.append(u[:, :right].reshape(left, i, j, right))
        rest, left = s[:right, None] * v[:right], right
    return [*cores, rest.reshape(left, rows[-1], columns[-1], 1)]


@dataclass
class Written:
    """A checkpoint in a folder, and what its tensors are."""

    folder: Path
    dense: dict[str, torch.Tensor] = field(default_factory=dict)

    def rewrite_manifest(self, change):
        """Applies a change to the manifest and signs it again."""
        path = self.folder / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        sign(path, manifest)


def write_checkpoint(folder, tensors, cuts, ties=None, companions=None, metadata=None):
    """Writes ``tensors`` as an MPO checkpoint, those in ``cuts`` as cores; ``ties`` name the tensor they equal."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    ties, entries, records, dense = ties or {}, {}, [], {}
    for name, tensor in tensors.items():
        record = {"name": name, "dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "orientation": "out_in"}
        dense[name] = tensor
        if name in ties:
            record |= {"kind": "tied", "tied_to": ties[name]}
        elif name in cuts:
            cut = cuts[name]
            shape = cut.matrix_shape or tuple(tensor.shape)
            matrix = tensor.double().numpy().reshape(shape)
            dtype = cut.dtype or tensor.dtype
            cores = [torch.from_numpy(c).to(dtype) for c in decompose(matrix, cut.rows, cut.columns, cut.bond)]
            entries |= {f"{name}.cores.{k}": core.contiguous() for k, core in enumerate(cores)}
            restored = multiply([core.double().numpy() for core in cores])[: shape[0], : shape[1]]
            norm = float(np.linalg.norm(matrix))
            dense[name] = torch.from_numpy(restored.reshape(tensor.shape)).to(tensor.dtype)
            record |= {
                "kind": "mpo",
                "matrix_shape": list(shape),
                "padded_shape": [prod(cut.rows), prod(cut.columns)],
                "row_factors": list(cut.rows),
                "column_factors": list(cut.columns),
                "bonds": [core.shape[3] for core in cores[:-1]],
                "full_bonds": full_bonds(cut.rows, cut.columns),
                "central": len(cores) // 2,
                "core_dtype": DTYPES[dtype],
                "norm": norm,
                "relative_error": float(np.linalg.norm(matrix - restored)) / norm,
            }
        else:
            record["kind"] = "dense"
            entries[name] = tensor.contiguous()
        records.append(record)
    save_file(entries, folder / "tensors.safetensors", metadata or {"format": "pt"})
    for name, content in (companions or {}).items():
        (folder / name).write_bytes(content)
    stored = sum(tensor.numel() for tensor in entries.values())
    before = sum(tensor.numel() for tensor in tensors.values())
    manifest = {
        "format": "mpo-checkpoint",
        "version": "1.0",
        "generator": "reference",
        "shards": [file_object(folder / "tensors.safetensors")],
        "companions": [file_object(folder / name) for name in companions or {}],
        "totals": {"parameters_before": before, "parameters_stored": stored, "ratio": stored / before},
        "tensors": records,
    }
    sign(folder / "manifest.json", manifest)
    return Written(folder, dense)


def multiply(cores):
    """The product of cores, as FORMAT.md gives it."""
    result = cores[0]
    for core in cores[1:]:
        result = np.einsum("aijb,bklc->aikjlc", result, core)
        a, i, k, j, l, c = result.shape
        result = result.reshape(a, i * k, j * l, c)
    return result[0, :, :, 0]


def file_object(path):
    content = path.read_bytes()
    return {"name": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def sign(path, manifest):
    manifest["manifest_sha256"] = "0" * 64
    digest = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    path.write_text(json.dumps(manifest | {"manifest_sha256": digest}))
