"""The tensors, operators, cores and entries of a checkpoint that `save` is about to write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from . import gauge as gauges
from .adapter_records import adapter_operator, added, dense_operator, free_name
from .adapters import Adapter, adapters_of
from .checkpoint import MPOCheckpoint
from .compact_weight import CompactMPOWeight
from .encoding import Encoding, Side
from .errors import CheckpointError
from .integer_matrix import IntegerMatrix
from .integers import IntegerArray
from .load_report import LoadedCheckpoint
from .loading import dense_tensors
from .mpo_matrix import MPOMatrix
from .mpo_weight import MPOWeight
from .records import CoreRecord, OperatorRecord, TensorRecord
from .safetensors_file import Entry
from .spectral import SpectralMPOWeight
from .torch_entries import entry_of, tensor_of
from .weights import core_digests, shared_cores

Gauge = Literal["compact", "canonical", "spectral"]

_ERRORS = ("relative_error", "metric_relative_error")


class Contents:
    """The contents of a new checkpoint, made from a model and the checkpoint that it was loaded from.

    Attributes
    ----------
    tensors, operators, cores
        the records by name, in the order in which they are written.
    entries
        the entries of the shard by name.
    added
        the names of tensors that the old checkpoint does not have.
    """

    def __init__(self, model: nn.Module, checkpoint: MPOCheckpoint, loaded: LoadedCheckpoint, gauge: Gauge | None):
        self.checkpoint, self.gauge = checkpoint, gauge
        self.tensors: dict[str, TensorRecord] = {}
        self.operators: dict[str, OperatorRecord] = {}
        self.cores: dict[str, CoreRecord] = {}
        self.entries: dict[str, Entry] = {}
        self.added: list[str] = []
        self._new_cores: dict[str, tuple[CoreRecord, dict[str, Entry]]] = {}
        self._sources: dict[str, MPOMatrix] = {}
        self._weights: dict[str, MPOWeight] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            if isinstance(module, MPOMatrix) and path in loaded.names:
                self._sources[loaded.names[path]] = module
                self._weights |= {operator.origin.operator: operator for operator in module.operators}

        dense: dict[str, Tensor] = {}
        new: dict[str, Tensor] = {}
        for tensor, names in dense_tensors(model).items():
            known = [loaded.names[name] for name in names if name in loaded.names]
            dense.update(dict.fromkeys(known, tensor))
            if not known:
                new[names[0]] = tensor
        if new and (checkpoint.manifest.raw.get("source") or {}).get("skeleton"):
            raise CheckpointError(
                checkpoint.path, f"came from an HDF5 file, to which no tensors can be added, but the model has {', '.join(new)} too"
            )

        shared = shared_cores(checkpoint)
        operators = {o.name: self._written_operator(o, shared) for o in checkpoint.operators.values()}
        adapters = self._adapters(model, loaded)
        for old in checkpoint:
            tensor, entries = self._written_tensor(old, dense)
            if old.name in adapters:
                tensor, entries = self._with_adapter(tensor, entries, adapters[old.name], operators)
            self._add(tensor, entries)
        for name, tensor in new.items():
            entry = entry_of(tensor)
            raw = {"name": name, "kind": "dense", "dtype": entry.dtype, "shape": list(entry.shape)}
            self._add(TensorRecord.parse(raw, {}), {name: entry})
            self.added.append(name)
        for name in dict.fromkeys(name for tensor in self.tensors.values() for name in tensor.operators):
            self.operators[name] = self._labelled(operators[name])
            for core in self.operators[name].core_names:
                self._add_core(core)

    def _add(self, tensor: TensorRecord, entries: dict[str, Entry]) -> None:
        self.tensors[tensor.name] = tensor
        self.entries |= entries

    def _add_core(self, name: str) -> None:
        if name in self.cores:
            return
        if name in self._new_cores:
            self.cores[name], entries = self._new_cores[name]
        else:
            self.cores[name] = replace(self.checkpoint.cores[name], packed={})
            entries = self.checkpoint.entries(self.checkpoint.cores[name])
        if both := self.entries.keys() & entries.keys():
            raise CheckpointError(name, f"the model's tensor {min(both)} has the name of an entry of this core")
        self.entries |= entries

    # Operators

    def _written_operator(self, old: OperatorRecord, shared: set[str]) -> OperatorRecord:
        """An operator as it is written; its new cores, if any, are added to ``_new_cores``."""
        weight = self._weights.get(old.name)
        gauge = self.gauge or ("spectral" if isinstance(weight, SpectralMPOWeight) else old.gauge)
        digests = () if weight is None else core_digests(weight)
        is_core_changed = (
            [False] * len(old.cores) if weight is None else [a != b for a, b in zip(digests, weight.origin.digests)]
        )
        is_shared = not shared.isdisjoint(old.chain_names)
        is_deepened = weight is not None and weight.is_deepened
        if weight is not None and weight.integers and self.gauge is None:
            return self._with_integers(old, weight, is_core_changed)
        if not any(is_core_changed) and (is_shared or gauge == old.gauge):
            return old
        chain = self.checkpoint.chain(old) if weight is None else [_array(core) for core in weight.whole_cores()]
        while is_deepened and len(chain) > 2:
            chain[1:3] = [np.tensordot(chain[1][:, 0, 0], chain[2], 1)]
        if [core.shape for core in chain] != old.core_shapes:
            raise CheckpointError(old.name, "has cores whose shapes changed since it was loaded")
        if is_shared and old.gauge == "spectral":
            raise CheckpointError(
                old.name, "shares cores and has singular values; such operators can't be saved once trained"
            )
        if is_shared or (gauge == "canonical" and self.gauge is None and not is_deepened):
            for name, core, is_changed in zip(old.cores, chain, is_core_changed):
                if is_changed:
                    self._new_core(name, core)
            return old
        sides: list[np.ndarray | None] = [None] * len(chain)
        sigma = None
        if gauge == "compact":
            chain, sides = gauges.compact(chain, old.central)
        elif gauge == "canonical":
            chain = gauges.canonical(chain, old.central)
        else:
            chain, sigma = gauges.spectral(chain, old.central)
        for site, (name, core, pivots) in enumerate(zip(old.cores, chain, sides)):
            self._new_core(name, core, old.pivot_side(site) if gauge == "compact" else None, pivots)
        return replace(old, gauge=gauge, singular_values=None if sigma is None else self._singular_values(old, sigma))

    def _with_integers(self, old: OperatorRecord, weight: MPOWeight, is_changed: list[bool]) -> OperatorRecord:
        """An operator with cores of integers: each core that changed replaces the old one, in the same gauge."""
        pivots = weight.pivots.cpu().numpy() if isinstance(weight, CompactMPOWeight) else None
        if old.gauge == "spectral" and is_changed[old.central]:
            raise CheckpointError(old.name, "has integers and singular values; such operators can't be saved once trained")
        for site, (name, core) in enumerate(zip(old.cores, weight.stored_cores)):
            if not is_changed[site]:
                continue
            if isinstance(core, IntegerArray):
                record, entries = self.checkpoint.cores[name], self.checkpoint.entries(self.checkpoint.cores[name])
                self._new_cores[name] = replace(record, packed={}), entries | _stored(name, core)
            elif pivots is not None and site != old.central:
                self._new_core(name, _array(weight.whole_cores()[site]), old.pivot_side(site), pivots)
            else:
                self._new_core(name, _array(core))
        return old

    def _new_core(
        self, name: str, array: np.ndarray, side: Side | None = None, pivots: np.ndarray | None = None
    ) -> None:
        old = self.checkpoint.cores[name]
        encoding = old.encoding if old.encoding.pivots == side else replace(old.encoding, pivots=side)
        encoding, entries = encoding.encode(name, np.asarray(array, np.float64), pivots)
        self._new_cores[name] = replace(old, encoding=encoding, packed={}), entries

    def _singular_values(self, operator: OperatorRecord, sigma: np.ndarray) -> str:
        """Adds a core with the singular values of an operator; returns its name."""
        central = self.checkpoint.cores[operator.cores[operator.central]].encoding
        name = operator.singular_values or f"{operator.name}.singular_values"
        if operator.singular_values is None and name in self.checkpoint.cores.keys() | self.checkpoint.tensors.keys():
            raise CheckpointError(operator.name, f"can't get singular values, because another tensor or core has the name {name}")
        encoding = Encoding.plain("F64" if central.dtype == "F64" else "F32")
        record = CoreRecord(name, "singular_values", sigma.shape, encoding)
        self._new_cores[name] = record, encoding.encode(name, sigma)[1]
        return name

    def _labelled(self, operator: OperatorRecord) -> OperatorRecord:
        """The operator with its gauge corrected: if its shared cores became whole, it is no longer compact."""

        def pivots(name: str) -> str | None:
            return (
                self._new_cores[name][0] if name in self._new_cores else self.checkpoint.cores[name]
            ).encoding.pivots

        is_compact = all(pivots(name) == operator.pivot_side(site) for site, name in enumerate(operator.cores))
        return replace(operator, gauge="canonical") if operator.gauge == "compact" and not is_compact else operator

    # Adapters

    def _adapters(self, model: nn.Module, loaded: LoadedCheckpoint) -> dict[str, Adapter]:
        """Adapters by the names of the tensors of their layers."""
        adapters, tensors = {}, self.checkpoint.tensors
        for path, adapter in adapters_of(model).items():
            name = loaded.names.get(f"{path}.weight")
            if name is None:
                raise CheckpointError(path, "has an adapter, but the checkpoint does not have the layer's matrix; use save_peft_adapter")
            if tensors[name].kind == "tied" or any(other.tied_to == name for other in tensors.values()):
                raise CheckpointError(path, f"has an adapter, but its matrix {name} is tied to another tensor; use save_peft_adapter")
            adapters[name] = adapter
        return adapters

    def _with_adapter(
        self, tensor: TensorRecord, entries: dict[str, Entry], adapter: Adapter, operators: dict[str, OperatorRecord]
    ) -> tuple[TensorRecord, dict[str, Entry]]:
        """A tensor and its entries with an adapter; adds the new operators to ``operators``."""
        base = None
        if tensor.kind == "dense":
            value = tensor.encoding.decode(entries, tensor.name, tensor.shape, tensor.name)
            base, encoding = tensor.name, tensor.encoding
            if encoding.kind == "scaled":
                encoding = Encoding.plain(tensor.dtype)
            operators[base], cores = dense_operator(base, np.asarray(value, np.float64), encoding)
            if encoding.kind == "grouped":  # the central core has the same values in the same order, so they need no rounding
                central = operators[base].cores[operators[base].central]
                renamed = {central + entry.removeprefix(base): stored for entry, stored in entries.items()}
                cores[central] = cores[central][0], renamed
            self._new_cores |= cores
        name = free_name(tensor.name, set(operators))
        operators[name], cores = adapter_operator(adapter, name)
        self._new_cores |= cores
        return added(tensor, operators, base, name), {} if base else entries

    # Tensors

    def _written_tensor(self, old: TensorRecord, dense: dict[str, Tensor]) -> tuple[TensorRecord, dict[str, Entry]]:
        """A tensor's record and entries as they are written."""
        holder, checkpoint = self.checkpoint.holder(old), self.checkpoint
        is_value = old.name in dense and old.name not in self._sources
        if not is_value:
            if old.kind == "mpo" and self._is_changed(old):
                return _without(old, *_ERRORS), {}
            source = self._sources.get(old.name)
            if isinstance(source, IntegerMatrix) and old.kind == "dense":
                return _without(old, "packed"), checkpoint.entries(old) | _stored(old.name, source.array)
            return _without(old, "packed"), checkpoint.entries(old) if old.kind == "dense" else {}
        value = entry_of(dense[old.name], old.dtype)
        if old.kind == "mpo":  # it was restored to dense, because its layer has no counterpart made of cores
            if _same(value, entry_of(torch.from_numpy(checkpoint.tensor(old.name)), old.dtype)):
                return (_without(old, *_ERRORS) if self._is_changed(old) else old), {}
        elif old.kind == "tied":
            if holder.name in self._sources:
                target = self._sources[holder.name].matrix().reshape(old.shape)
            elif holder.name in dense:
                target = dense[holder.name]
            elif holder.kind == "mpo":
                target = torch.from_numpy(checkpoint.tensor(holder.name))
            else:
                target = tensor_of(checkpoint.dense(holder))
            if _same(value, entry_of(target, old.dtype)):
                return old, {}
        elif old.encoding != Encoding.plain(old.dtype):
            assert old.encoding is not None
            if _same(value, checkpoint.dense(old)):
                return _without(old, "packed"), checkpoint.entries(old)
            encoding, entries = old.encoding.encode(old.name, _array(dense[old.name]))
            return replace(
                old, encoding=encoding, packed={}, raw={**_without(old, "packed").raw, "encoding": encoding.json()}
            ), entries
        members: dict[str, Any] = {key: old.raw[key] for key in ("name", "dtype", "shape", "orientation") if key in old.raw}
        return TensorRecord.parse({**members, "kind": "dense"}, {}), {old.name: value}

    def _is_changed(self, tensor: TensorRecord) -> bool:
        """Whether one of its cores changed."""
        return any(
            core in self._new_cores for name in tensor.operators for core in self.checkpoint.operators[name].cores
        )


def _stored(name: str, array: IntegerArray) -> dict[str, Entry]:
    """The entries of an array of integers: its codes and its scales."""
    return {name: entry_of(array.codes), f"{name}.scales": entry_of(array.scales)}


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _without(tensor: TensorRecord, *members: str) -> TensorRecord:
    packed = {} if "packed" in members else tensor.packed
    return replace(tensor, packed=packed, raw={key: value for key, value in tensor.raw.items() if key not in members})


def _same(a: Entry, b: Entry) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool((a.data == b.data).all())
