"""Statistics of a language model, collected block by block, so that the whole model is never in memory.

Forward, each block computes the hidden states after it from those before it, for all samples. The head gives the gradient of the
objective after the last block. Backward, each block is computed again from its inputs; it turns the gradient after it into the
gradient before it, and the second moments of its layers' inputs and output gradients are summed and written before the next block
begins. The memory is that of one block and of the hidden states between blocks.

Files beside the result keep the results of each block while the run goes on (`UnfinishedRun`). A run that was killed continues
with the block that it had not finished, and writes the same bytes as an uninterrupted run.

For a linear layer with inputs ``x`` and output gradients ``g`` at the positions of the text, the sides are

    S = mean over positions of x xᵀ        the plain second moment of the inputs
    G = sum over a sample's positions of g gᵀ, mean over samples

whose product approximates the curvature of the objective (K-FAC, arXiv 1503.05671). For an expert of a mixture, S is the mean
over the positions that are routed to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .block_calls import block_calls, head_gradients
from .block_moments import BlockMoments, Layer
from .boundaries import Boundaries
from .layers import Kind, kind_of
from .objectives import Objective
from .resuming import UnfinishedRun
from .statistics import Statistics
from .statistics_writer import StatisticsWriter
from .trunk import Trunk

BATCH_POSITIONS = 2048
"""The default number of positions that run through a block at a time."""
OUTPUT_RIDGE = 0.1
"""The best ridge of the outputs' side, relative to the mean of its diagonal, measured on SmolLM2 (tools/bench/QUALITY.md)."""

WRITTEN = "statistics.safetensors"
"""The file, in the folder of an unfinished run, with the statistics of the finished blocks."""


@dataclass(frozen=True)
class Selection:
    """Which matrices get statistics, and which sides get a Gram matrix.

    Attributes
    ----------
    include, exclude
        globs of names in the checkpoint; ``exclude`` takes precedence.
    min_side
        matrices with a smaller side are left out.
    max_gram
        a larger side gets only the diagonal of its Gram matrix.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    min_side: int = 64
    max_gram: int = 8192

    def has(self, name: str, shape: torch.Size) -> bool:
        """Whether a matrix is selected."""
        return (
            len(shape) == 2
            and min(shape) >= self.min_side
            and any(fnmatchcase(name, glob) for glob in self.include)
            and not any(fnmatchcase(name, glob) for glob in self.exclude)
        )


def stream_statistics(
    trunk: Trunk,
    pieces: Tensor,
    objective: Objective,
    selection: Selection,
    output: Path,
    *,
    dtype: str = "float32",
    batch_size: int | None = None,
    description: str = "",
    config_sha256: str | None = None,
    is_restarted: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    notice: Callable[[str], None] = lambda text: None,
) -> Statistics:
    """Writes the statistics of the matrices in a model's trunk.

    Parameters
    ----------
    trunk
        the model.
    pieces
        token ids ``[samples, positions]`` without padding.
    objective
        the objective whose gradients are taken.
    selection
        the matrices.
    output
        the statistics file, which appears whole or not at all.
    dtype
        the dtype of the numbers in the file; sums over batches are always float64.
    batch_size
        the maximum number of samples at a time; by default as many as have ``BATCH_POSITIONS`` positions.
    description, config_sha256
        see `Statistics`.
    is_restarted
        True: removes what an earlier run left that was killed. False: continues that run.
    progress
        called with the finished and the total number of steps.
    notice
        called with a message if an earlier run is continued.

    Returns
    -------
    Statistics
        the metadata of the file, without tensors.

    Raises
    ------
    ValueError
        if no matrix is selected, if the objective depends on none of them, or if an unfinished run had other settings.
    NoTrunk
        if the model's forward does more than call its blocks one after the other.
    """
    layers = [_layers(trunk, index, selection) for index in range(len(trunk.blocks))]
    if not any(layers):
        raise ValueError("no matrix of the model's blocks is selected; see --include, --exclude and --min-side")
    count, length = pieces.shape
    batch_size = _divisor(count, batch_size or max(1, BATCH_POSITIONS // length))
    settings = {
        "text": hashlib.sha256(pieces.numpy().tobytes()).hexdigest(),
        "number of samples": list(pieces.shape),
        "model": [config_sha256, trunk.files],
        "objective": [str(objective), objective.first],
        "selection of matrices": [selection.include, selection.exclude, selection.min_side, selection.max_gram],
        "dtype": dtype,
        "batch size": batch_size,
        "device": trunk.device.type,
        "version of PyTorch": torch.__version__,
    }
    with UnfinishedRun(output, settings, is_restarted) as run:
        if run.finished.get("writer") and not run.path(WRITTEN).exists():
            run.finished = {}  # the earlier run was killed after it had moved the result to its path
        stream = _Stream(trunk, pieces, objective, batch_size, run, progress)
        if run.finished:
            notice(f"{output}: continues the run in {run.folder.name}, of which {stream.percent} % are done")
        stream.forward()
        stream.head()
        statistics = Statistics({}, count, pieces.numel(), description, input_rows=[], output_ridge=OUTPUT_RIDGE)
        statistics.config_sha256 = config_sha256
        stream.backward(layers, selection.max_gram, statistics, dtype)
    return statistics


class _Stream:
    """A run through a model: forward through all blocks, the objective, and backward. Each step continues an unfinished run.

    Parameters
    ----------
    run
        its ``finished`` has ``forward``, the number of blocks whose outputs are computed; after the objective, ``backward``, the
        number of blocks that are left; and the state of what `backward` has written.
    """

    def __init__(
        self,
        trunk: Trunk,
        pieces: Tensor,
        objective: Objective,
        batch_size: int,
        run: UnfinishedRun,
        progress: Callable[[int, int], None],
    ):
        self.trunk, self.objective, self.run, self.progress = trunk, objective, run, progress
        self.count, self.positions = len(pieces), pieces.numel()
        self.batch_size = batch_size
        self.batches = [batch.to(trunk.device) for batch in pieces.split(batch_size)]
        self.depth = len(trunk.blocks)
        with trunk.loaded(None), torch.no_grad():
            self.calls = block_calls(trunk, self.batches)
        shape = self.calls.inputs[0].shape
        count = len(self.batches)
        self.inputs = Boundaries((self.depth + 1) * count, shape, run.path("activations"))
        for index, value in enumerate(self.calls.inputs):
            self.inputs[index] = value
        self.calls.inputs.clear()
        # Each pass has two sets of gradients, which alternate between boundaries, so that an unfinished block can begin again.
        self.gradients = [
            Boundaries(2 * count, shape, run.path(f"gradients-{index}"), memory=1 << 62)
            for index in range(objective.passes)
        ]
        # A backward step takes about three times a forward one.
        self.total = count * self.depth * 4 + self.count
        self.done = count * run.finished.get("forward", 0)
        if (left := run.finished.get("backward")) is not None:
            self.done = count * self.depth + self.count + count * 3 * (self.depth - left)
        progress(self.done, self.total)

    @property
    def percent(self) -> int:
        return 100 * self.done // self.total

    def forward(self) -> None:
        """Computes the hidden states after every block."""
        if "backward" in self.run.finished:
            return
        for index in range(self.run.finished.get("forward", 0), self.depth):
            with self.trunk.loaded(index), torch.no_grad():
                for batch in range(len(self.batches)):
                    place = index * len(self.batches) + batch
                    value = self.inputs[place].to(self.trunk.device)
                    self.inputs[place + len(self.batches)] = self.calls.run(index, value)
                    self._step(1)
            self.run.finish(forward=index + 1)

    def head(self) -> None:
        """Computes the objective's gradients after the last block."""
        if "backward" in self.run.finished:
            return
        with self.trunk.loaded(None):
            for batch, ids in enumerate(self.batches):
                place = self.depth * len(self.batches) + batch
                value = self.inputs[place].to(self.trunk.device)
                first = batch * self.batch_size
                found = [
                    head_gradients(self.calls, self.objective, ids[row : row + 1], value[row : row + 1], first + row)
                    for row in range(len(ids))
                ]
                for index, boundary in enumerate(self.gradients):
                    boundary[self._gradient(self.depth, batch)] = torch.cat([sample[index] for sample in found])
                self.inputs.drop(place)
                self._step(len(ids))
        self.run.finish(backward=self.depth)

    def backward(self, layers: list[list[Layer]], max_gram: int, statistics: Statistics, dtype: str) -> None:
        """Computes and writes the moments, from the last block to the first."""
        finished = self.run.finished
        for name in ("written", "skipped", "input_rows"):
            getattr(statistics, name).extend(finished.get(name, ()))
        same: dict[str, str] = finished.get("same", {})
        names = [f"{layer.name}.column_scale" for block in layers for layer in block]
        temporary, state = self.run.path(WRITTEN), finished.get("writer")
        with StatisticsWriter(self.run.output, names * 2, dtype, temporary=temporary, state=state) as writer:
            for index in reversed(range(finished["backward"])):
                moments = self._block_moments(index, layers[index], max_gram)
                moments.write(writer, self.count * self.objective.passes, self.positions, statistics, same)
                self.run.finish(
                    backward=index,
                    writer=writer.state,
                    written=statistics.written,
                    skipped=statistics.skipped,
                    input_rows=statistics.input_rows,
                    same=same,
                )
            if len(statistics.skipped) == len(names):
                raise ValueError("the objective depends on no selected matrix of the model's blocks; see --include, and check the weights")
            writer.finish(statistics.metadata | ({"same": _json(same)} if same else {}))

    def _block_moments(self, index: int, layers: list[Layer], max_gram: int) -> BlockMoments:
        moments = BlockMoments(layers, max_gram)
        with self.trunk.loaded(index):
            for batch in range(len(self.batches)):
                place = index * len(self.batches) + batch
                value = self.inputs[place].to(self.trunk.device).requires_grad_()
                with torch.enable_grad(), moments.collected():
                    result = self.calls.run(index, value)
                for left, boundary in reversed(list(enumerate(self.gradients))):
                    after = boundary[self._gradient(index + 1, batch)].to(self.trunk.device)
                    (gradient,) = torch.autograd.grad(result, value, after, retain_graph=left > 0)
                    boundary[self._gradient(index, batch)] = gradient
                self.inputs.drop(place)
                self._step(3)
        return moments

    def _gradient(self, boundary: int, batch: int) -> int:
        return boundary % 2 * len(self.batches) + batch

    def _step(self, size: int) -> None:
        self.done += size
        self.progress(self.done, self.total)


def _layers(trunk: Trunk, index: int, selection: Selection) -> list[Layer]:
    layers = []
    for path, module in trunk.blocks[index].named_modules():
        kind = kind_of(module)
        if kind not in (Kind.LINEAR, Kind.CONV1D):
            continue
        name = trunk.names[f"{trunk.block_path(index)}.{path}.weight"]
        if selection.has(name, module.weight.shape):
            layers.append(Layer(name, module, kind, module.weight.shape))
    for path, parameter in trunk.blocks[index].named_parameters():
        module, _, key = path.rpartition(".")
        for part in trunk.experts.get(f"{trunk.block_path(index)}.{path}", []):
            shape = torch.Size((part.stop - part.start, parameter.shape[2]))
            if selection.has(part.name, shape):
                owner = trunk.blocks[index].get_submodule(module)
                layers.append(Layer(part.name, owner, Kind.LINEAR, shape, key, part))
    return layers


def _divisor(count: int, limit: int) -> int:
    """The largest divisor of a count that is at most a limit, so that all batches have one size."""
    return next(size for size in range(min(count, limit), 0, -1) if count % size == 0)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
