"""Models whose operators have every gauge, share cores and bases, and make tensors of ranges and sums."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from malformed import FOLDER
from mpo_checkpoint import (
    CheckpointError,
    CompactMPOWeight,
    MPOBlockWeight,
    MPOCheckpoint,
    MPOLinear,
    MPOWeight,
    load_dense,
    load_into,
    save,
)
from reference import Cut, file_object, write_checkpoint
from safetensors.torch import load_file, save_file
from torch import nn

BASE = FOLDER / "base.mpo"
SHARED = ("a.weight", "b.weight", "square.weight")
"""Tensors whose operators share cores in their chains."""
LAYERS = {
    "chain": (12, 7), "rank": (4, 5), "a": (6, 4), "b": (6, 4), "q": (5, 4), "k": (5, 4), "sum": (3, 4), "int8": (12, 4),
    "spectral": (6, 4), "square": (8, 8), "tied": (12, 7),
}  # fmt: skip


def model():
    layers = {name: nn.Linear(*sizes, bias=name in ("chain", "tied")) for name, sizes in LAYERS.items()}
    return nn.ModuleDict(layers).eval()


def loaded(trainable="none", path=BASE):
    net = model()
    load_into(net, path, trainable)
    return net


def entries_of(folder):
    """All entries, unpacked, by name."""
    checkpoint = MPOCheckpoint(folder)
    records = [*checkpoint.tensors.values(), *checkpoint.cores.values()]
    return {name: (e.dtype, e.shape, e.data.tobytes()) for r in records for name, e in checkpoint.entries(r).items()}


def assert_computes(net, dense, **tolerance):
    for name, layer in net.items():
        x = torch.randn(3, layer.in_features)
        expected = x @ torch.from_numpy(dense[f"{name}.weight"]).T + (0 if layer.bias is None else layer.bias)
        torch.testing.assert_close(layer(x), expected, **{"atol": 1e-5, "rtol": 1e-5, **tolerance})


def train(net, only=lambda name: True):
    """Changes every parameter that requires gradients, each by a different step."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            step = torch.randn(parameter.shape, generator=generator) * 0.05
            if parameter.requires_grad and only(name):
                parameter.add_(step)


def matrices(net):
    return {f"{name}.weight": layer.weight.matrix().detach().numpy().copy() for name, layer in net.items()}


@pytest.mark.parametrize("trainable", ["none", "auxiliary", "all"])
def test_every_operator_computes_what_it_restores_to(trainable):
    assert_computes(loaded(trainable), load_dense(BASE))


def test_kinds_of_weights():
    net = loaded()
    kinds = {name: type(layer.weight) for name, layer in net.items()}
    assert all(type(layer) is MPOLinear for layer in net.values())
    assert kinds["q"] is kinds["k"] is kinds["sum"] is MPOBlockWeight and kinds["rank"] is MPOWeight
    assert type(net["q"].weight.parts[0]) is CompactMPOWeight and net["q"].weight.parts[0] is net["k"].weight.parts[0]
    assert net["tied"].weight is net["chain"].weight
    trained = loaded("auxiliary")
    assert type(trained["q"].weight.parts[0]) is MPOWeight, "whole where cores are trained"


def test_shared_cores_and_bases_are_shared():
    net = loaded("all")
    a, b, square = (net[name].weight for name in ("a", "b", "square"))
    assert a.cores[1] is b.cores[1] and square.cores[0] is square.cores[2]
    assert a.column_basis.basis is b.column_basis.basis
    assert net["chain"].weight.cores[1] is net["tied"].weight.cores[1]
    clone = copy.deepcopy(net).double()
    assert clone["a"].weight.cores[1] is clone["b"].weight.cores[1]
    assert clone["a"].weight.column_basis.basis.value.dtype == torch.float64


def test_compact_operators_become_canonical_if_they_are_trained():
    net = loaded("auxiliary")
    weights = [net["chain"].weight, net["int8"].weight, *net["q"].weight.operators]
    for weight in weights:
        for k, core in enumerate(weight.cores):
            if k != weight.central:
                matrix = core.reshape(-1, core.shape[3]) if k < weight.central else core.reshape(len(core), -1).T
                torch.testing.assert_close(matrix.T @ matrix, torch.eye(matrix.shape[1]), atol=1e-6, rtol=0)
                assert core.requires_grad
        assert not weight.central_core.requires_grad


def test_what_is_trained_is_what_is_counted():
    for trainable in ("none", "auxiliary", "central", "all"):
        net = model()
        report = load_into(net, BASE, trainable)
        parameters = set(net.parameters())
        assert report.trainable.total() == sum(p.numel() for p in parameters if p.requires_grad)
        assert report.trainable["bases"] == 0 and report.parameters["bases"] == 36 + 4 + 4 + 6
        assert f"{report.trainable.total():,}" in str(report) and f"{report.parameters_stored:,}" in str(report)
    checkpoint = MPOCheckpoint(BASE)
    names = {"chain.bias"} | {f"{name}.weight" for name in LAYERS}
    operators = {name for tensor in checkpoint for name in tensor.operators if tensor.name in names}
    cores = {core for name in operators for core in checkpoint.operators[name].core_names}
    assert report.parameters_stored == 7 + sum(checkpoint.cores[core].value_count for core in cores)


def test_gradients_reach_shared_cores():
    net = loaded("all")
    x = torch.randn(2, 6)
    (net["a"](x).square().sum() + net["b"](x).square().sum()).backward()
    shared = net["a"].weight.cores[1].grad.clone()
    apart = []
    for name in ("a", "b"):
        other = loaded("all")
        other[name](x).square().sum().backward()
        apart.append(other[name].weight.cores[1].grad)
    torch.testing.assert_close(shared, sum(apart))


@pytest.mark.parametrize("trainable", ["none", "all"])
def test_nothing_changes_when_nothing_was_trained(trainable, tmp_path):
    save(loaded(trainable), tmp_path / "x.mpo")
    assert entries_of(tmp_path / "x.mpo") == entries_of(BASE)
    old, new = (json.loads((folder / "manifest.json").read_text()) for folder in (BASE, tmp_path / "x.mpo"))
    assert new["operators"] == old["operators"] and new["cores"] == old["cores"]
    assert [t for t in new["tensors"] if t["name"] != "repeated"] == [
        t for t in old["tensors"] if t["name"] != "repeated"
    ]
    for name in ("parameters_before", "parameters_stored", "parameters_trainable", "bytes_before", "ratio"):
        assert new["totals"][name] == old["totals"][name]
    assert new["totals"]["bytes_stored"] == old["totals"]["bytes_unpacked"]


@pytest.mark.parametrize("gauge", [None, "compact", "canonical", "spectral"])
@pytest.mark.parametrize("is_trained", [False, True])
def test_saved_in_a_gauge(gauge, is_trained, tmp_path):
    net = loaded("all")
    if is_trained:
        train(net)
    save(net, tmp_path / "x.mpo", gauge=gauge)
    saved, dense = MPOCheckpoint(tmp_path / "x.mpo"), load_dense(tmp_path / "x.mpo")
    saved.verify()
    for name, matrix in matrices(net).items():
        is_rounded = name == "int8.weight"
        error = np.linalg.norm(dense[name] - matrix) / np.linalg.norm(matrix)
        assert error < (0.02 if is_rounded else 1e-5), name
    old = MPOCheckpoint(BASE)
    for name, operator in saved.operators.items():
        if name in SHARED:
            assert operator.gauge == "canonical"
        else:
            assert operator.gauge == (gauge or old.operators[name].gauge)
    if is_trained:
        assert "relative_error" not in saved.tensors["chain.weight"].raw and "norm" in saved.tensors["chain.weight"].raw
    assert saved.cores["int8.weight.cores.1"].encoding.kind == "scaled"
    again = loaded("none", tmp_path / "x.mpo")
    for name, matrix in matrices(again).items():
        np.testing.assert_allclose(matrix, dense[name], atol=1e-5)


def test_gauges_there_and_back(tmp_path):
    path = BASE
    for gauge in ("spectral", "canonical", "compact"):
        save(loaded("none", path), tmp_path / gauge, gauge=gauge)
        path = tmp_path / gauge
    dense, expected = load_dense(path), load_dense(BASE)
    for name in expected:
        if name != "int8.weight":
            np.testing.assert_allclose(dense[name], expected[name], atol=1e-5, err_msg=name)
    counts = {
        gauge: json.loads((tmp_path / gauge / "manifest.json").read_text())["totals"]
        for gauge in ("spectral", "canonical", "compact")
    }
    assert (
        counts["compact"]["parameters_stored"]
        < counts["canonical"]["parameters_stored"]
        < counts["spectral"]["parameters_stored"]
    )


def test_shared_cores_stay_shared_when_they_are_trained(tmp_path):
    net = loaded("central")
    train(net, lambda name: name.startswith(("a.", "b.")))
    save(net, tmp_path / "x.mpo")
    saved = MPOCheckpoint(tmp_path / "x.mpo")
    assert saved.operators["a.weight"].cores[1] == saved.operators["b.weight"].cores[1] == "shared.central"
    for name in ("a.weight", "b.weight"):
        np.testing.assert_allclose(saved.tensor(name), matrices(net)[name], atol=1e-5)
        assert not np.array_equal(saved.tensor(name), MPOCheckpoint(BASE).tensor(name))
    changed = {name for name, entry in entries_of(tmp_path / "x.mpo").items() if entry != entries_of(BASE)[name]}
    assert changed == {"shared.central"}


def test_a_compact_operator_of_shared_cores_is_whole_once_it_was_trained(tmp_path):
    """Two operators that share a pivoted core: as `qk`, whose second operator is the base's with other central core."""
    folder = tmp_path / "base.mpo"
    tensors = {"0.weight": torch.randn(8, 5), "1.weight": torch.randn(8, 5)}
    cut = Cut((8, 1), (1, 5), bond=3, gauge="compact")
    written = write_checkpoint(folder, tensors, dict.fromkeys(tensors, cut))

    def share(manifest):
        manifest["operators"][1]["cores"][1] = manifest["operators"][0]["cores"][1]
        manifest["cores"] = [core for core in manifest["cores"] if core["name"] != "1.weight.cores.1"]

    entries = load_file(folder / "tensors.safetensors")
    save_file(
        {n: e for n, e in entries.items() if not n.startswith("1.weight.cores.1")}, folder / "tensors.safetensors"
    )
    written.rewrite_manifest(lambda m: (share(m), m.update(shards=[file_object(folder / "tensors.safetensors")])))
    net = nn.Sequential(nn.Linear(5, 8, bias=False), nn.Linear(5, 8, bias=False))
    load_into(net, folder, "auxiliary")
    assert net[0].weight.cores[1] is net[1].weight.cores[1]
    save(net, tmp_path / "same.mpo", gauge="canonical")
    assert {o.gauge for o in MPOCheckpoint(tmp_path / "same.mpo").operators.values()} == {"compact"}
    train(net)
    save(net, tmp_path / "x.mpo")
    saved = MPOCheckpoint(tmp_path / "x.mpo")
    assert {operator.gauge for operator in saved.operators.values()} == {"canonical"}
    for k in range(2):
        np.testing.assert_allclose(saved.tensor(f"{k}.weight"), net[k].weight.matrix().detach(), atol=1e-5)
        assert "relative_error" not in saved.tensors[f"{k}.weight"].raw


def test_an_encoded_dense_tensor_keeps_its_encoding(tmp_path):
    net = nn.ModuleDict({"chain": nn.Linear(12, 7)})
    net.register_parameter("table", nn.Parameter(torch.zeros(4, 3)))
    load_into(net, BASE, "all")
    np.testing.assert_array_equal(net.table.detach(), load_dense(BASE)["table"])
    with torch.no_grad():
        net.table.mul_(2)
    save(net, tmp_path / "x.mpo")
    saved = MPOCheckpoint(tmp_path / "x.mpo")
    assert saved.tensors["table"].encoding.kind == "scaled"
    np.testing.assert_allclose(saved.tensor("table"), 2 * load_dense(BASE)["table"], atol=2 / 127 * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_are_kept_in_every_gauge(dtype, tmp_path):
    tensors = {"a.weight": torch.randn(64, 64).to(dtype)}
    cut = Cut((2, 4, 2, 4), (4, 2, 4, 2), bond=20, gauge="compact")
    folder = write_checkpoint(tmp_path / "x.mpo", tensors, {"a.weight": cut}).folder
    net = nn.ModuleDict({"a": nn.Linear(64, 64, bias=False)})
    load_into(net, folder, "all")
    train(net)
    for gauge in (None, "canonical", "spectral"):
        save(net, tmp_path / "y.mpo", gauge=gauge, force=True)
        saved = MPOCheckpoint(tmp_path / "y.mpo")
        saved.verify()
        old = MPOCheckpoint(folder)
        for name, core in saved.cores.items():
            assert core.encoding.dtype == (old.cores[name].encoding.dtype if name in old.cores else "F32")
        error = saved.tensor("a.weight") - net["a"].weight.matrix().detach().numpy()
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        assert np.linalg.norm(error) < tolerance * np.linalg.norm(net["a"].weight.matrix().detach())


def test_elements_too_large_for_the_dtype_are_refused(tmp_path):
    net = loaded("all")
    with torch.no_grad():
        net["chain"].weight.cores[0][0, 0, 0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="finite"):
        save(net, tmp_path / "x.mpo")
    assert not (tmp_path / "x.mpo").exists()
    with pytest.raises(ValueError, match="gauge"):
        save(net, tmp_path / "x.mpo", gauge="mixed")
