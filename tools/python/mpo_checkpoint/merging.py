"""Merges the statistics of several parts of a text into one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .errors import StatisticsError
from .statistics import FORMAT, VERSION, opened
from .statistics_writer import StatisticsWriter


def merge_statistics(paths: Sequence[Path | str], output: Path | str) -> tuple[int, int]:
    """Writes the means over all samples of several statistics files of the same matrices, one tensor at a time.

    Each file is weighted by its number of samples. That is right for the sides of the outputs, means over samples, and, because
    all pieces must have one length, for the sides of the inputs, means over positions.

    Parameters
    ----------
    paths
        the statistics files; each has other samples.
    output
        the file to write.

    Returns
    -------
    the numbers of samples and of tokens of the result.

    Raises
    ------
    StatisticsError
        if the files have different matrices or options, or if one is not a statistics file of this version.
    """
    files = [opened(path) for path in paths]
    metadata = [file.metadata() or {} for file in files]
    for path, one in zip(paths, metadata):
        if one.get("format") != FORMAT or one.get("version", "1").partition(".")[0] != VERSION:
            raise StatisticsError(f"{path}: is not a statistics file of version {VERSION}; make it with 'calibrate'")
    names = sorted(files[0].keys())
    for path, file, one in zip(paths, files, metadata):
        if sorted(file.keys()) != names or any(
            one.get(key) != metadata[0].get(key) for key in ("same", "input_rows", "output_ridge", "input_ridge", "config_sha256")
        ):
            raise StatisticsError(f"{path}: has other matrices than {paths[0]}, or was made with other options; make both with the same command")
    samples = [int(one.get("samples", 0)) for one in metadata]
    tokens = [int(one.get("tokens", 0)) for one in metadata]
    if 0 in samples or len({length / count for length, count in zip(tokens, samples)}) > 1:
        raise StatisticsError("the pieces of the files have different lengths; make all with the same --max-length")
    weights = [count / sum(samples) for count in samples]
    dtype = files[0].get_tensor(names[0]).dtype
    with StatisticsWriter(Path(output), names + list(json.loads(metadata[0].get("same", "{}"))), dtype) as writer:
        for name in names:
            values = [file.get_tensor(name).astype(np.float64) for file in files]
            if len({value.shape for value in values}) > 1:
                raise StatisticsError(f"{name}: has different shapes in the files, which are of different models; give files of one model")
            if name.endswith("_scale"):  # the root of a mean
                writer.add(name, np.sqrt(sum(weight * value**2 for weight, value in zip(weights, values))))
            else:
                writer.add(name, sum(weight * value for weight, value in zip(weights, values)))
        writer.finish(
            metadata[0]
            | {
                "samples": str(sum(samples)),
                "tokens": str(sum(tokens)),
                "description": "; ".join(one.get("description", "") for one in metadata),
            }
        )
    return sum(samples), sum(tokens)
