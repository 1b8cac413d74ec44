#!/usr/bin/env python3
"""Measures the speed and memory of mpo and of other software on the same matrices, in one run.

usage: measure.py --mpo PATH --packaged PATH --mpo-bench PATH --work FOLDER --results FILE [--only SECTION …]

--packaged is the program as it is packaged, with the Swift runtime in it: what users start.

Things that are compared run in turn (A B A B); times are medians. Sections that FILE already has are not measured again unless
--only names them. tools/bench/report.py makes tables and plots of FILE.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from math import prod
from pathlib import Path

import numpy as np
from safetensors import safe_open

import models

HERE = Path(__file__).resolve().parent
CORES = len(os.sched_getaffinity(0))
SECTIONS = {}


def section(function):
    SECTIONS[function.__name__] = function
    return function


def in_turn(runs, **things):
    """The medians, by name, of functions that give seconds; each is called ``runs`` times, all in turn."""
    times = {name: [] for name in things}
    for _ in range(runs):
        for name, thing in things.items():
            times[name].append(thing())
    return {name: statistics.median(values) for name, values in times.items()}


def seconds_of(*command, **environment):
    """Wall-clock seconds of a command."""
    start = time.perf_counter()
    subprocess.run(
        [str(word) for word in command], stdout=subprocess.DEVNULL, check=True, env={**os.environ, **environment}
    )
    return time.perf_counter() - start


def peak_memory(*command):
    """The peak resident memory of a command, in bytes.

    The system reports for a child at least the memory of the process that forked it, so a small process runs the command.
    """
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    words = [sys.executable, "-c", script, *map(str, command)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout) * 1024


def threads(count):
    return {"OPENBLAS_NUM_THREADS": str(count), "OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}


def flops_of_profile(record):
    """The minimum number of floating-point operations with which this algorithm profiles a matrix.

    A symmetric rank-k update counts as half a product, the eigenvalues of an n × n matrix as 4/3 n³ (Golub & Van Loan, 8.3).
    """
    left, right = outer_sizes(record)
    size = prod(record["padded_shape"])
    short, long = sorted(record["matrix_shape"])
    grams = {(left, size), (right, size)} if len(record["bonds"]) > 1 else {(short, short * long)}
    if record.get("svd_relative_error") is not None:  # the profile has the singular values of the matrix too
        grams.add((short, short * long))
    return sum(n * elements + 4 / 3 * n**3 for n, elements in grams if n > 1)


def flops_of_decomposition(record):
    """The minimum for truncating a matrix to its bonds and measuring the error, after its profile.

    The eigenvectors of an n × n matrix count as 4 n³. The profile leaves the Gram matrix of the side that comes first, reduced to
    tridiagonal form: a third of them.
    """
    sites = [i * j for i, j in zip(record["row_factors"], record["column_factors"])]
    centre, bonds = record["central"], record["bonds"]
    if len(bonds) == 1:  # by the Gram matrix of the shorter side
        return 8 / 3 * min(sites) ** 3 + prod(sites) * 2 * bonds[0] + flops_of_product(record)
    flops = 0
    for chain, kept in ((sites[:centre], bonds[:centre]), (sites[:centre:-1], bonds[centre:][::-1])):
        before = 1
        for site, bond in zip(chain, kept):
            flops += 4 * (before * site) ** 3
            before = bond

    def side(size, bond):  # operations for each element (the side's Gram matrix and the projection), and the part of the elements left
        return (size + 2 * bond, bond / size) if size > 1 else (0, 1)

    sizes = outer_sizes(record)
    left, right = map(side, sizes, central_bonds(record))
    orders = (left[0] + left[1] * right[0], sizes[0]), (right[0] + right[1] * left[0], sizes[1])
    operations, first = min(order for order in orders if order[1] > 1)
    flops += prod(sites) * (operations - first) - 4 / 3 * first**3  # what the profile leaves of the first side
    return flops + flops_of_product(record)  # for the error


def flops_of_product(record):
    """The minimum for contracting the cores, without the small cost of the outer ones.

    In the gauge compact, as many rows of the left side (columns of the right side) as the bond are the identity and take no
    products.
    """
    left, right = outer_sizes(record)
    before, after = central_bonds(record)
    site = prod(record["padded_shape"]) // (left * right)
    compact = record.get("gauge") == "compact"
    left_rows, right_columns = left - compact * before, right - compact * after
    return 2 * site * min(
        before * after * right_columns + left_rows * before * right,
        left_rows * before * after + left * after * right_columns)


def flops_in_metric(rows, columns, rank):
    """The same of one matrix [m, n], m ≤ n, in a metric of both sides, to rank r (Golub & Van Loan, 5.2, 8.3).

    Whitening by triangular roots m n (m + n), the Gram matrix m² n, eigenvectors 4 m³; then, of what is stored, the
    projection 2 r m n, the triangular solution m² r, its QR 2 m r²; the error in the metric: the product 2 r m n and
    whitening again.
    """
    m, n = sorted((rows, columns))
    whitening = m * n * (m + n)
    decomposition = whitening + m * m * n + 4 * m**3
    if rank is None:  # stays dense: only its singular values were needed
        return whitening + m * m * n + 4 / 3 * m**3
    return decomposition + 4 * rank * m * n + m * m * rank + 2 * m * rank**2 + whitening


def flops_of_metric_conversion(output):
    """Of all matrices in layers of a conversion in a metric; the factors of second moments are not counted."""
    manifest = json.loads((output / "manifest.json").read_text())
    ranks = {operator["name"]: operator["bonds"][0] for operator in manifest["operators"]}
    return sum(
        flops_in_metric(*tensor["shape"], ranks.get(tensor["name"]))
        for tensor in manifest["tensors"]
        if ".layer" in tensor["name"] and len(tensor["shape"]) == 2)


def central_bonds(record):
    """The bonds left and right of the central core."""
    bonds = [1, *record["bonds"], 1]
    return bonds[record["central"]], bonds[record["central"] + 1]


def outer_sizes(record):
    sites = [i * j for i, j in zip(record["row_factors"], record["column_factors"])]
    return prod(sites[: record["central"]]), prod(sites[record["central"] + 1 :])


class Bench:
    def __init__(self, options):
        self.mpo, self.packaged, self.bench, self.work = options.mpo, options.packaged, options.mpo_bench, options.work
        self.rates = {}

    def sgemm_rate(self, count):
        """The floating-point operations per second of a large single-precision product on ``count`` threads."""
        script = (
            "import numpy as np, time; a = np.ones((3072, 3072), np.float32); a @ a; best = 9e9\n"
            "for _ in range(5):\n start = time.perf_counter(); a @ a; best = min(best, time.perf_counter() - start)\n"
            "print(2 * 3072**3 / best)"
        )
        if count not in self.rates:
            output = subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, check=True,
                env={**os.environ, **threads(count)},
            ).stdout
            self.rates[count] = float(output)
        return self.rates[count]

    def model(self, name, *arguments):
        """The folder of a generated model, which is made at the first call."""
        words = [name, *(str(word) for word in arguments if not isinstance(word, Path))]
        folder = self.work / "-".join(words).replace("--", "")
        if not folder.exists():
            subprocess.run(
                [sys.executable, HERE / "models.py", name, folder.with_suffix(".part"), *arguments], check=True)
            folder.with_suffix(".part").rename(folder)
        return folder

    def output(self, name):
        path = self.work / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        return path

    def convert(self, model, output, *arguments):
        return seconds_of(self.mpo, "convert", model, "-o", output, "--force", *arguments)

    def peer(self, name, count):
        """Seconds and relative error of a peer on ``count`` threads, for the matrix and the decomposition in the work folder."""
        output = subprocess.run(
            [sys.executable, HERE / "peers.py", name, self.work / "w.npy", self.work / "shape.json"],
            capture_output=True, text=True, check=True, env={**os.environ, **threads(count)}).stdout
        return tuple(map(float, output.split()[-2:]))

    def matrices(self, output):
        """The operators of a conversion, each with the errors of its tensor."""
        manifest = json.loads((output / "manifest.json").read_text())
        errors = {}
        for tensor in manifest["tensors"]:
            for term in (term for block in tensor.get("blocks", []) for term in block):
                errors[term["operator"]] = {key: tensor.get(key) for key in ("relative_error", "svd_relative_error")}
        return [{**record, **errors[record["name"]]} for record in manifest["operators"]]


@section
def machine(bench):
    """The machine."""
    name = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine())
    return {
        "processor": name, "cores": CORES,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(), "numpy": np.__version__,
        "sgemm_flops": {count: bench.sgemm_rate(count) for count in sorted({1, CORES})},
    }


@section
def single_matrices(bench):
    """One matrix on one thread, decomposed losslessly and to half its parameters, by mpo and by each peer that is fast enough."""
    rows = []
    last = {}
    for shape in [(384, 384), (768, 768), (768, 3072), (2048, 2048), (2048, 5632), (4096, 4096), (8192, 8192)]:
        folder = bench.output("single")
        models.write(folder, {"w": shape})
        from safetensors.numpy import load_file

        np.save(bench.work / "w.npy", load_file(folder / "model.safetensors")["w"])
        for how in (("--lossless",), ("--structure", "chain", "--ratio", "0.5")):
            converted = bench.output("single.mpo")
            bench.convert(folder, converted, *how)
            (record,) = bench.matrices(converted)
            (bench.work / "shape.json").write_text(json.dumps(record))
            bonds = ",".join(map(str, record["bonds"]))

            errors = {"mpo": record["relative_error"]}

            def ours():
                output = subprocess.run(
                    [bench.bench, "decompose", folder / "model.safetensors", "w", "--bonds", bonds, "--runs", "1"],
                    capture_output=True, text=True, check=True).stdout
                return float(output.split()[1])

            def peer(name):
                taken, errors[name] = bench.peer(name, 1)
                return taken

            things = {"mpo": ours}
            for name in ("numpy", "torch", "tensorly", "teneva"):
                # The time grows faster than the number of elements to the power of 1.5.
                expected = last.get((name, how), (0, 1))
                if expected[0] * (prod(shape) / expected[1]) ** 1.5 < 60:
                    things[name] = lambda name=name: peer(name)
            times = in_turn(3 if prod(shape) < 5e6 else 1, **things)
            for name, taken in times.items():
                last[name, how] = (taken, prod(shape))
            rows.append({
                "shape": shape, "how": " ".join(how), "bonds": record["bonds"], "seconds": times, "errors": errors,
                "sgemm_seconds": (flops_of_decomposition(record) - flops_of_product(record)) / bench.sgemm_rate(1),
            })
            print(rows[-1], flush=True)
    return rows


@section
def bert_base(bench):
    """The whole conversion of BERT-base, against only NumPy's sweep over the same matrices with the same bonds."""
    model, output = bench.model("bert-base"), bench.output("bert.mpo")
    result = in_turn(3, convert=lambda: bench.convert(model, output, "--structure", "chain", "--ratio", "0.5"))
    matrices = bench.matrices(output)
    flops = sum(flops_of_profile(r) + flops_of_decomposition(r) for r in matrices)
    by_shape = {}
    for record in matrices:
        by_shape.setdefault((tuple(record["matrix_shape"]), tuple(record["row_factors"])), []).append(record)
    total = 0
    for (shape, _), records in by_shape.items():  # one matrix of each shape, times their number
        record = sorted(records, key=lambda r: sum(r["bonds"]))[len(records) // 2]
        np.save(bench.work / "w.npy", models.decaying(np.random.default_rng(1), shape))
        (bench.work / "shape.json").write_text(json.dumps(record))
        total += bench.peer("numpy", CORES)[0] * len(records)
    return {
        **result, "numpy": total, "sgemm": flops / bench.sgemm_rate(CORES), "matrices": len(matrices),
        "peak_bytes": peak_memory(bench.mpo, "convert", model, "-o", output, "--force", "--structure", "chain", "--ratio", "0.5"),
        "largest_bytes": 30522 * 768 * 4, "jobs": CORES,
    }


@section
def metric(bench):
    """Whole conversions in the metric of statistics, with the structures that are chosen by default."""
    rows = []
    for name in ("minilm", "smollm2-135m", "bert-base"):
        moments = bench.work / f"{name}.statistics.safetensors"
        model = bench.model(name, "--statistics", moments)
        output = bench.output("metric.mpo")
        arguments = "--include", "*.layer*.weight", "--matrix-ratio", "0.6", "--calibration", moments
        taken = in_turn(3, convert=lambda: bench.convert(model, output, *arguments))["convert"]
        flops = flops_of_metric_conversion(output)
        with safe_open(moments, "np") as file:
            counts = [file.get_slice(key).get_shape()[0] for key in file.keys()]  # n (n + 1) / 2
        flops += sum((((8 * count + 1) ** 0.5 - 1) / 2) ** 3 / 3 for count in counts)  # each is factored once
        rows.append({
            "model": name, "convert": taken, "sgemm": flops / bench.sgemm_rate(CORES),
            "peak_bytes": peak_memory(bench.mpo, "convert", model, "-o", output, "--force", *arguments),
        })
        print(rows[-1], flush=True)
    return rows


@section
def llama(bench):
    """Profile, conversion and memory for a Llama of 1.1 billion parameters."""
    rows = []
    for dtype in ("F32", "BF16"):
        model, output = bench.model("llama-1.1b", "--dtype", dtype), bench.output("llama.mpo")
        profile = bench.output("llama.json")
        seconds_of("sh", "-c", 'cat "$0"/* > /dev/null', model)  # loads the files into the page cache, if they fit
        taken = seconds_of(bench.mpo, "profile", model, "-o", profile, "--structure", "chain", "--ratio", "0.5")
        start = time.perf_counter()
        peak = peak_memory(bench.mpo, "convert", model, "-o", output, "--force", "--structure", "chain", "--ratio", "0.5")
        converted = time.perf_counter() - start
        matrices = bench.matrices(output)
        rate = bench.sgemm_rate(CORES)
        rows.append({
            "dtype": dtype, "profile": taken, "profile_sgemm": sum(map(flops_of_profile, matrices)) / rate,
            "convert": converted, "convert_sgemm": sum(
                flops_of_profile(r) + flops_of_decomposition(r) for r in matrices) / rate,
            "peak_bytes": peak, "largest_bytes": 32000 * 2048 * 4, "jobs": CORES,
        })
        print(rows[-1], flush=True)
        shutil.rmtree(output)
        if dtype == "BF16":
            shutil.rmtree(model)
    return rows


@section
def layers(bench):
    """Time and memory against the number of layers."""
    rows = []
    for count in (4, 8, 16, 32, 64):
        model, output = bench.model("layers", "--layers", str(count)), bench.output("layers.mpo")
        taken = in_turn(3, convert=lambda: bench.convert(model, output, "--structure", "chain", "--ratio", "0.5"))["convert"]
        peak = peak_memory(bench.mpo, "convert", model, "-o", output, "--force", "--structure", "chain", "--ratio", "0.5")
        rows.append({"layers": count, "seconds": taken, "peak_bytes": peak, "largest_bytes": 4 * 1024**2})
        shutil.rmtree(model)
    return rows


@section
def restoring(bench):
    """Restoring BERT-base to a new file, against copying the result to a new file plus the products that restoring takes."""
    model, output = bench.model("bert-base"), bench.output("bert.mpo")
    bench.convert(model, output, "--structure", "chain", "--ratio", "0.5")
    restored = bench.work / "restored.safetensors"
    times = in_turn(
        5, restore=lambda: seconds_of(bench.mpo, "restore", output, "-o", bench.output(restored.name)),
        cp=lambda: seconds_of(
            "sh", "-c", 'cp --reflink=never "$0" "$1" && sync "$1"', restored, bench.output("copied.safetensors")))
    flops = sum(map(flops_of_product, bench.matrices(output)))
    return {**times, "sgemm": flops / bench.sgemm_rate(CORES)}


@section
def small_things(bench):
    """Starting the program that is packaged, and inspecting a folder of 5 GB."""
    folder = bench.output("five-gigabytes")
    shapes = {f"model.layers.{n}.mlp.up_proj.weight": (11008, 4096) for n in range(28)}
    folder.mkdir()
    header, offset = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + prod(shape) * 4]}
        offset += prod(shape) * 4
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:  # a sparse file: only its header is read
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    result = in_turn(
        15, version=lambda: seconds_of(bench.packaged, "--version"),
        inspect=lambda: seconds_of(bench.packaged, "inspect", folder))
    return {**result, "bytes": offset}


@section
def reading(bench):
    """Reading one matrix of 360 MB from the page cache, with every page touched."""
    import h5py

    folder = bench.output("reading")
    models.write(folder, {"w": (11008, 8192)})
    path, hdf5 = folder / "model.safetensors", folder / "model.h5"
    with safe_open(path, "np") as file, h5py.File(hdf5, "w") as target:
        target["w"] = file.get_tensor("w")

    def ours(file):
        output = subprocess.run(
            [bench.bench, "read", file, "w", "--runs", "1"], capture_output=True, text=True, check=True).stdout
        return float(output.split()[0])

    def with_safetensors():
        start = time.perf_counter()
        with safe_open(path, "np") as file:
            file.get_tensor("w")
        return time.perf_counter() - start

    def with_h5py():
        start = time.perf_counter()
        with h5py.File(hdf5) as file:
            file["w"][...]
        return time.perf_counter() - start

    return in_turn(
        5, mpo_safetensors=lambda: ours(path), safetensors=with_safetensors, mpo_hdf5=lambda: ours(hdf5), h5py=with_h5py,
        cat=lambda: seconds_of("cat", path))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("mpo", "packaged", "mpo-bench", "work", "results"):
        parser.add_argument("--" + name, type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), default=[])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    bench = Bench(options)
    for name, measure in SECTIONS.items():
        if name in results and name not in options.only or options.only and name not in options.only:
            continue
        print(f"{name}: {measure.__doc__}", file=sys.stderr, flush=True)
        results[name] = measure(bench)
        options.results.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
