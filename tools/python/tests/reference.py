"""A converter small enough to be obviously right: sequential SVD, and the manifest as FORMAT.md says it.

It shares no code with the package.
"""

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
    """How a matrix is decomposed: factors of rows and columns, the largest bond, and the gauge of what is stored."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    bond: int = 10**9
    dtype: torch.dtype | None = None
    matrix_shape: tuple[int, int] | None = None
    gauge: str = "canonical"


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


def central_index(rows, columns):
    sites = [i * j for i, j in zip(rows, columns)]
    return next(k for k in range(len(sites)) if prod(sites[: k + 1]) >= prod(sites[k + 1 :]))


def pivots_of(matrix):
    """Rows of ``[m, d]`` that span all rows: each the one farthest from those before it."""
    rest, pivots = matrix.copy(), []
    for _ in range(matrix.shape[1]):
        row = int(np.square(rest).sum(1).argmax())
        direction = rest[row] / np.linalg.norm(rest[row])
        rest = rest - np.outer(rest @ direction, direction)
        pivots.append(row)
    return np.array(sorted(pivots))


def compacted(cores, central):
    """Cores of the same matrix that are the identity at their pivots; and the pivots."""
    cores, pivots = list(cores), [None] * len(cores)
    for k in range(central):
        matrix = cores[k].reshape(-1, cores[k].shape[3])
        pivots[k] = pivots_of(np.linalg.qr(matrix)[0])
        transfer = matrix[pivots[k]]
        cores[k] = (matrix @ np.linalg.pinv(transfer)).reshape(cores[k].shape)
        cores[k + 1] = np.einsum("ab,bijc->aijc", transfer, cores[k + 1])
    for k in range(len(cores) - 1, central, -1):
        matrix = cores[k].reshape(cores[k].shape[0], -1)
        pivots[k] = pivots_of(np.linalg.qr(matrix.T)[0])
        transfer = matrix[:, pivots[k]]
        cores[k] = (np.linalg.pinv(transfer) @ matrix).reshape(cores[k].shape)
        cores[k - 1] = np.einsum("aijb,bc->aijc", cores[k - 1], transfer)
    return cores, pivots


def index_dtype(count):
    return np.uint8 if count <= 256 else np.uint16 if count <= 65536 else np.uint32


def stored_core(name, core, pivots, dtype, is_left, role):
    """The entries and the manifest's object of a core, and the core as it is stored."""
    encoding = {"kind": "plain", "dtype": DTYPES[dtype]}
    if pivots is None:
        tensor = torch.from_numpy(core).to(dtype).contiguous()
        entries, core = {name: tensor}, tensor.double().numpy()
    else:
        matrix = core.reshape(-1, core.shape[3]) if is_left else core.reshape(core.shape[0], -1).T
        others = np.setdiff1d(np.arange(len(matrix)), pivots)
        values = torch.from_numpy(matrix[others] if is_left else matrix[others].T).to(dtype).contiguous()
        encoding["pivots"] = "left" if is_left else "right"
        entries = {name: values, f"{name}.pivots": torch.from_numpy(pivots.astype(index_dtype(len(matrix))))}
        entries = entries if len(others) else {}
        whole = np.zeros(matrix.shape)
        whole[pivots, np.arange(len(pivots))] = 1
        whole[others] = values.double().numpy() if is_left else values.double().numpy().T
        core = (whole if is_left else whole.T).reshape(core.shape)
    return entries, {"name": name, "role": role, "shape": list(core.shape), "encoding": encoding}, core


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
    operators, core_records, stored = [], [], 0
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
            cores, central = decompose(matrix, cut.rows, cut.columns, cut.bond), central_index(cut.rows, cut.columns)
            pivots = [None] * len(cores)
            if cut.gauge == "compact":
                cores, pivots = compacted(cores, central)
            names = [f"{name}.cores.{k}" for k in range(len(cores))]
            for k, core in enumerate(cores):
                role = "central" if k == central else "auxiliary"
                own, described, cores[k] = stored_core(names[k], core, pivots[k], dtype, k < central, role)
                entries |= own
                core_records.append(described)
                stored += sum(tensor.numel() for entry, tensor in own.items() if not entry.endswith(".pivots"))
            restored = multiply(cores)[: shape[0], : shape[1]]
            norm = float(np.linalg.norm(matrix))
            dense[name] = torch.from_numpy(restored.reshape(tensor.shape)).to(tensor.dtype)
            record |= {
                "kind": "mpo",
                "matrix_shape": list(shape),
                "blocks": [[{"operator": name}]],
                "norm": norm,
                "relative_error": float(np.linalg.norm(matrix - restored)) / norm,
            }
            operators.append({
                "name": name,
                "matrix_shape": list(shape),
                "padded_shape": [prod(cut.rows), prod(cut.columns)],
                "row_factors": list(cut.rows),
                "column_factors": list(cut.columns),
                "bonds": [core.shape[3] for core in cores[:-1]],
                "full_bonds": full_bonds(cut.rows, cut.columns),
                "central": central,
                "gauge": cut.gauge,
                "cores": names,
            })  # fmt: skip
        else:
            record["kind"] = "dense"
            entries[name] = tensor.contiguous()
            stored += tensor.numel()
        records.append(record)
    save_file(entries, folder / "tensors.safetensors", metadata or {"format": "pt"})
    for name, content in (companions or {}).items():
        (folder / name).write_bytes(content)
    before = sum(tensor.numel() for tensor in tensors.values())
    manifest = {
        "format": "mpo-checkpoint",
        "version": "2.0",
        "generator": "reference",
        "shards": [file_object(folder / "tensors.safetensors")],
        "companions": [file_object(folder / name) for name in companions or {}],
        "totals": {"parameters_before": before, "parameters_stored": stored, "ratio": stored / before},
        "tensors": records,
        "operators": operators,
        "cores": core_records,
    }
    sign(folder / "manifest.json", manifest)
    return Written(folder, dense)


def multiply(cores):
    """The product of cores, as FORMAT.md defines it."""
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
