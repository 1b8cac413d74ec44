#!/usr/bin/env python3
"""Makes RESULTS.md and its plots from the results of measure.py.

usage: report.py RESULTS.json FOLDER
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

plt.rcParams.update({"svg.hashsalt": "mpo", "svg.fonttype": "none", "font.size": 10, "figure.figsize": (7, 4)})
PEERS = {
    "mpo": "mpo", "numpy": "NumPy", "torch": "torch", "tensorly": "tensorly", "teneva": "teneva",
}


def seconds(value):
    return f"{value * 1000:.0f} ms" if value < 0.1 else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def megabytes(value):
    return f"{value / 1e6:,.0f} MB"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]) + "\n"


def against(value, bar, unit="×", below=True):
    """A figure, its bar, and whether the figure meets the bar."""
    holds = value <= bar if below else value >= bar
    return f"{value:.1f} {unit}", f"{'≤' if below else '≥'} {bar:g} {unit}", "yes" if holds else "**no**"


def plot(path, title, x, y, series, logarithmic=False):
    figure, axes = plt.subplots()
    for name, (xs, ys) in series.items():
        axes.plot(xs, ys, marker="o", label=name)
    axes.set(title=title, xlabel=x, ylabel=y)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


MEMORY_RULE = "2.5 × the largest tensor in single precision a worker + 100 MB"


def memory_limit(row):
    return 2.5 * row["largest_bytes"] * row["jobs"] + 1e8


def bars(results):
    """The aims: (what, reached, bar, whether it is met)."""
    rows = []
    if bert := results.get("bert_base"):
        rows.append(("BERT-base converted, against NumPy's sweep of its matrices alone",
                     *against(bert["numpy"] / bert["convert"], 14, "× faster", below=False)))
        rows.append(("the same, against sgemm doing its least operations", *against(bert["convert"] / bert["sgemm"], 1.7)))
        limit = memory_limit(bert)
        rows.append(("peak memory of that", megabytes(bert["peak_bytes"]), f"≤ {megabytes(limit)} ({MEMORY_RULE})",
                     "yes" if bert["peak_bytes"] <= limit else "**no**"))
    for row in results.get("metric", []):
        rows.append((f"{row['model']} converted in a metric, against sgemm", *against(row["convert"] / row["sgemm"], 3)))
    for row in results.get("llama", []):
        rows.append((f"profile of the {row['dtype']} Llama, against sgemm", *against(row["profile"] / row["profile_sgemm"], 3)))
        limit = memory_limit(row)
        rows.append((f"peak memory of converting it ({row['dtype']})", megabytes(row["peak_bytes"]),
                     f"≤ {megabytes(limit)} ({MEMORY_RULE})",
                     "yes" if row["peak_bytes"] <= limit else "**no**"))
    if layers := results.get("layers"):
        first, last = layers[0], layers[-1]
        ratio = last["seconds"] / first["seconds"] / (last["layers"] / first["layers"])
        rows.append((f"time for a layer, {last['layers']} layers against {first['layers']}", *against(ratio, 1.2)))
        rows.append((f"peak memory, {last['layers']} layers against {first['layers']}",
                     *against(last["peak_bytes"] / first["peak_bytes"], 1.2)))
    if small := results.get("small_things"):
        rows.append(("inspect on a folder of 5 GB", seconds(small["inspect"]), "≤ 15 ms",
                     "yes" if small["inspect"] <= 0.015 else "**no**"))
        rows.append(("start-up", seconds(small["version"]), "≤ 8 ms", "yes" if small["version"] <= 0.008 else "**no**"))
    if restore := results.get("restoring"):
        rows.append(("BERT-base restored, against cp + sgemm",
                     *against(restore["restore"] / (restore["cp"] + restore["sgemm"]), 1.5)))
    return rows


def main():
    results, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    machine = results["machine"]
    rates = ", ".join(f"{float(rate) / 1e9:.0f} GFLOP/s on {count}" for count, rate in machine["sgemm_flops"].items())
    text = f"""# Results

Made by `tools/bench/run`, in one run on one machine; read ratios, not seconds. Times are medians of runs in turn.

Machine: {machine["processor"]}, {machine["cores"]} cores, {machine["memory_bytes"] / 2**30:.0f} GiB, {machine["system"]};
NumPy {machine["numpy"]}; single-precision product (sgemm): {rates} thread(s). The least operations of the algorithm,
which sgemm is timed with: `flops_of_profile` and `flops_of_decomposition` in measure.py.

## Aims

{table(("what", "reached", "bar", "holds"), bars(results))}
"""
    if rows := results.get("single_matrices"):
        text += "## One matrix, one thread\n\nFrom the matrix in memory to its cores, to the same bonds; – where the peer would take minutes. "
        text += "sgemm does what is left to do after a profile; mpo has none here.\n\n"
        text += table(
            ("matrix", "how", "bonds", "sgemm", *PEERS.values()),
            [("×".join(map(str, row["shape"])), row["how"].split("--")[-1], ",".join(map(str, row["bonds"])),
              seconds(row["sgemm_seconds"]), *(seconds(row["seconds"][p]) if p in row["seconds"] else "–" for p in PEERS))
             for row in rows])
        text += "\nRelative errors of what they made, at half of the parameters. teneva has one bond for all places, the largest, "
        text += "so its cores are larger; the others begin from the left, mpo with the side that leaves less to do.\n\n"
        text += table(
            ("matrix", *PEERS.values()),
            [("×".join(map(str, row["shape"])),
              *(f"{row['errors'][p]:.6f}" if p in row["errors"] else "–" for p in PEERS))
             for row in rows if row["how"].endswith("--ratio 0.5")])
        for how, name in (("--ratio 0.5", "half"), ("--lossless", "lossless")):
            chosen = [row for row in rows if row["how"].endswith(how)]
            series = {
                label: ([r["shape"][0] * r["shape"][1] for r in chosen if peer in r["seconds"]],
                        [r["seconds"][peer] for r in chosen if peer in r["seconds"]])
                for peer, label in PEERS.items()}
            series["sgemm"] = ([r["shape"][0] * r["shape"][1] for r in chosen], [r["sgemm_seconds"] for r in chosen])
            plot(folder / f"matrix-{name}.svg", f"One matrix on one thread, {how.strip('-')}", "elements", "seconds", series, True)
            text += f"\n![One matrix, {name}](matrix-{name}.svg)\n"
    if bert := results.get("bert_base"):
        text += "\n## BERT-base\n\nThe whole of `mpo convert --ratio 0.5`: read, profile, plan, decompose, measure, write, checksums, flush.\n\n"
        text += table(("", "time"), [
            ("mpo, everything", seconds(bert["convert"])), ("sgemm doing its least operations", seconds(bert["sgemm"])),
            (f"NumPy's sequential SVD of the {bert['matrices']} matrices to the same bonds, nothing else (one of each shape, times their number)", seconds(bert["numpy"])),
            ("peak memory", f"{megabytes(bert['peak_bytes'])}, largest tensor {megabytes(bert['largest_bytes'])}")])
    if rows := results.get("metric"):
        text += "\n## In a metric\n\nThe whole of `mpo convert --matrix-ratio 0.6 --calibration` of the matrices in layers, with made-up weights and statistics.\n\n"
        text += table(
            ("sizes of", "convert", "sgemm of the least operations", "peak memory"),
            [(r["model"], seconds(r["convert"]), seconds(r["sgemm"]), megabytes(r["peak_bytes"])) for r in rows])
    if rows := results.get("llama"):
        text += "\n## Llama, 1.1 billion parameters\n\n" + table(
            ("dtype", "profile", "its sgemm", "convert", "its sgemm", "peak memory", "largest tensor"),
            [(r["dtype"], seconds(r["profile"]), seconds(r["profile_sgemm"]), seconds(r["convert"]),
              seconds(r["convert_sgemm"]), megabytes(r["peak_bytes"]), megabytes(r["largest_bytes"])) for r in rows])
    if rows := results.get("layers"):
        text += "\n## Against the number of layers\n\nMatrices of 1024 × 1024, `--ratio 0.5`.\n\n" + table(
            ("layers", "time", "peak memory"), [(r["layers"], seconds(r["seconds"]), megabytes(r["peak_bytes"])) for r in rows])
        counts = [r["layers"] for r in rows]
        plot(folder / "layers-time.svg", "Time against layers", "layers", "seconds", {"mpo convert": (counts, [r["seconds"] for r in rows])})
        plot(folder / "layers-memory.svg", "Peak memory against layers", "layers", "MB",
             {"mpo convert": (counts, [r["peak_bytes"] / 1e6 for r in rows]),
              "size of the model": (counts, [r["largest_bytes"] * r["layers"] / 1e6 for r in rows])})
        text += "\n![Time against layers](layers-time.svg)\n\n![Peak memory against layers](layers-memory.svg)\n"
    if restore := results.get("restoring"):
        text += "\n## Restoring BERT-base\n\n" + table(("restore", "cp and sync of the result", "sgemm of the products"), [
            (seconds(restore["restore"]), seconds(restore["cp"]), seconds(restore["sgemm"]))])
    if read := results.get("reading"):
        text += "\n## Reading a matrix of 360 MB\n\nFrom the page cache; mpo maps the file and touches every page.\n\n" + table(
            ("mpo, safetensors", "safetensors for Python", "mpo, HDF5", "h5py", "cat"),
            [tuple(seconds(read[k]) for k in ("mpo_safetensors", "safetensors", "mpo_hdf5", "h5py", "cat"))])
    remarks = Path(__file__).with_name("remarks.md")
    if remarks.exists():
        text += "\n" + remarks.read_text()
    (folder / "RESULTS.md").write_text(text)
    print("\n".join("  ".join(row) for row in bars(results)))


if __name__ == "__main__":
    main()
