"""Statistics of the layers of a model in a Hugging Face folder. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .calibration import collect_statistics
from .model_folder import configuration, loading, require_dense, require_device, weight_files
from .names import checkpoint_name, stored_names
from .objectives import Objective
from .outputs import output_function
from .statistics import Statistics
from .streaming import OUTPUT_RIDGE, Selection, stream_statistics
from .text_batches import TextBatches
from .trunk import NoTrunk, Trunk, trunk_of

TASKS = {
    "features": "AutoModel",
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}


def auto_class(task: str) -> Any:
    """The transformers class that loads a model for a task.

    Raises
    ------
    ValueError
        if there is no such task.
    """
    import transformers

    if task not in TASKS:
        raise ValueError(f"unknown task '{task}'; choose one of {', '.join(TASKS)}")
    return getattr(transformers, TASKS[task])


def task_of(folder: Path | str) -> str:
    """The task of a model folder: ``causal-lm`` if its configuration names a causal language model, otherwise ``features``."""
    architectures = configuration(folder).get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    return "causal-lm" if str(first).endswith(("ForCausalLM", "LMHeadModel")) else "features"


def config_sha256(folder: Path | str) -> str | None:
    """The SHA-256 of a model folder's ``config.json``; None if the folder has none."""
    path = Path(folder) / "config.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def calibrate_folder(
    folder: Path | str,
    samples: Iterable[str],
    *,
    task: str = "features",
    output: str = "auto",
    batch_size: int = 32,
    max_length: int = 128,
    projections: int = 12,
    seed: int = 0,
    show_progress: bool = False,
    **selection: Any,
) -> Statistics:
    """Collects statistics of the model in a folder from samples of text. Matrices have the names of the folder's checkpoint.

    Parameters
    ----------
    folder
        a model folder of transformers.
    samples
        the texts.
    task
        the head of the model, as for `from_pretrained`.
    output
        the output whose change is measured: ``"embedding"``, ``"hidden"``, ``"logits"``, or ``"auto"`` for the first of these
        that the folder and the task have.
    batch_size, max_length
        the number of samples at a time, and the maximum number of tokens of a sample.
    projections
        the number of random projections of each output.
    seed
        the seed of the projections.
    show_progress
        whether to print the number of finished samples to standard error.
    selection
        passed on to `collect_statistics`: ``include``, ``exclude``, ``min_side``, ``max_gram``, ``has_element_weights``.

    Returns
    -------
    Statistics
        the statistics of all layers that the output depends on.

    Raises
    ------
    ValueError
        if the folder can't be loaded, or if an argument is invalid.
    """
    folder = Path(folder)
    require_dense(folder)
    forward, what = output_function(folder, task, output)
    batches = TextBatches(folder, samples, batch_size=batch_size, max_length=max_length)
    weight_files(folder)
    with loading(folder):
        model = auto_class(task).from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    stored, prefix = stored_names(folder), getattr(model, "base_model_prefix", "")

    def named(model_name: str) -> str | None:
        return model_name if stored is None else checkpoint_name(model_name, stored, prefix)

    count = len(batches.samples)
    statistics = collect_statistics(
        model,
        _with_progress(batches, count) if show_progress else batches,
        forward,
        projections=projections,
        seed=seed,
        names=named,
        description=f"{folder.resolve().name}: {count} samples, {projections} projections of {what}, seed {seed}",
        **selection,
    )
    statistics.config_sha256 = config_sha256(folder)
    return statistics


def calibrate_language_model(
    folder: Path | str,
    pieces: Tensor,
    output: Path | str,
    *,
    objective: Objective = Objective(),
    include: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    min_side: int = 64,
    max_gram: int = 8192,
    has_element_weights: bool = False,
    dtype: str = "float32",
    batch_size: int | None = None,
    device: str = "cpu",
    is_restarted: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    notice: Callable[[str], None] = lambda text: None,
) -> Statistics:
    """Writes the statistics of a causal language model. Matrices have the names of the folder's checkpoint.

    The model runs block by block, with one block in memory. If the model has no list of blocks, or if ``include`` selects
    matrices outside the blocks, the whole model is loaded instead, and ``notice`` is called with the reason.

    Parameters
    ----------
    folder
        the model folder.
    pieces
        token ids ``[samples, positions]``, see `text_pieces`.
    output
        the statistics file.
    objective
        the objective whose gradients are taken.
    include, exclude
        globs of matrices; by default all matrices of the model's blocks are included.
    min_side, max_gram, has_element_weights
        see `collect_statistics`. With ``has_element_weights`` the whole model is loaded.
    dtype
        the dtype of the numbers in the file, ``"float32"`` or ``"float64"``.
    batch_size
        the number of samples that run through a block at a time; None for as many as have 2048 positions.
    device
        the device that computes the blocks.
    is_restarted
        True: removes what an earlier run left that was killed. False: continues that run.
    progress
        called with the finished and the total number of steps.
    notice
        called with messages for the user.

    Returns
    -------
    Statistics
        the metadata of the file, without tensors.

    Raises
    ------
    ValueError
        if the model can't be loaded, if it does not fit the pieces, or if no matrix is selected.
    """
    folder, output = Path(folder), Path(output)
    count, length = pieces.shape
    description = f"{folder.resolve().name}: {count} samples of {length} tokens, {objective}"
    auto = auto_class("causal-lm")
    require_dense(folder)
    require_device(device)
    _require_fit(folder, pieces)
    selection = Selection(tuple(include or ("*",)), tuple(exclude), min_side, max_gram)
    try:
        if has_element_weights:
            raise NoTrunk("it collects weights of elements")
        trunk = Trunk(folder, auto, device)
        outside = [name for name in _outer_matrices(trunk) if include and selection.has(name, torch.Size((1 << 30,) * 2))]
        if outside:
            raise NoTrunk(f"'{outside[0]}' is selected, which is outside its blocks")
        return stream_statistics(
            trunk,
            pieces,
            objective,
            selection,
            output,
            dtype=dtype,
            batch_size=batch_size,
            description=description,
            config_sha256=config_sha256(folder),
            is_restarted=is_restarted,
            progress=progress,
            notice=notice,
        )
    except NoTrunk as reason:
        if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
            raise ValueError(f"{folder}: has no weights; put the model's *.safetensors files beside config.json") from None
        notice(f"{folder}: the model can't run block by block because {reason}; all of it is loaded")

    with loading(folder):
        model = auto.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    if experts := [name for name, parameter in model.named_parameters() if parameter.ndim == 3]:
        notice(
            f"{folder}: no statistics are collected of experts that the model holds stacked, such as '{experts[0]}'; "
            "a conversion measures their errors in the Frobenius norm"
        )
    stored, prefix = stored_names(folder), getattr(model, "base_model_prefix", "")
    inside = None if include else _trunk_path(model)

    def named(model_name: str) -> str | None:
        if inside is not None and not model_name.startswith(inside + "."):
            return None
        return model_name if stored is None else checkpoint_name(model_name, stored, prefix)

    def batches() -> Iterator[Tensor]:
        for index in range(count):
            yield pieces[index : index + 1]
            progress(index + 1, count)

    numbers = iter(range(count))
    statistics = collect_statistics(
        model,
        batches(),
        lambda model, ids: model(input_ids=ids, use_cache=False).logits,
        mask=lambda ids: torch.ones_like(ids),
        losses=lambda logits, ids: objective.values(logits, ids, next(numbers)),
        passes=objective.passes,
        is_separable=True,
        has_element_weights=has_element_weights,
        names=named,
        include=selection.include,
        exclude=selection.exclude,
        min_side=min_side,
        max_gram=max_gram,
        description=description,
    )
    if not statistics.tensors:
        raise ValueError(f"{folder}: no matrix is left to write statistics of; see --include and --min-side")
    statistics.output_ridge = None if has_element_weights else OUTPUT_RIDGE
    statistics.config_sha256 = config_sha256(folder)
    statistics.save(output, dtype, is_packed=True)
    statistics.written, statistics.tensors = statistics.matrices, {}
    return statistics


def _require_fit(folder: Path, pieces: Tensor) -> None:
    """Raises ValueError if the model has too few tokens or positions for the pieces of text."""
    config = configuration(folder)
    tokens, positions = config.get("vocab_size"), config.get("max_position_embeddings", config.get("n_positions"))
    if isinstance(tokens, int) and (highest := int(pieces.max())) >= tokens:
        raise ValueError(
            f"{folder}: its tokenizer gives token {highest}, but the model has only {tokens} tokens; copy the tokenizer of this "
            "model into the folder"
        )
    if isinstance(positions, int) and pieces.shape[1] > positions:
        raise ValueError(
            f"{folder}: the model has {positions} positions, too few for pieces of {pieces.shape[1]} tokens; give a "
            f"--max-length of at most {positions}"
        )


def _outer_matrices(trunk: Trunk) -> list[str]:
    """The names, in the checkpoint, of the matrices outside the trunk."""
    return sorted(
        {
            source
            for name, source in trunk.names.items()
            if not name.startswith(trunk.path + ".") and trunk.model.get_parameter(name).ndim == 2
        }
    )


def _trunk_path(model: nn.Module) -> str | None:
    try:
        return trunk_of(model)[0]
    except NoTrunk:
        return None


def _with_progress(batches: TextBatches, count: int) -> Iterator[Any]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch["input_ids"])
        print(f"\r{done} of {count} samples", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
