"""The command line: ``python -m mpo_checkpoint calibrate MODEL TEXT -o STATS.safetensors``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from . import __version__
from .model_folder import configuration, require_dense
from .statistics import Statistics, tokens_per_dimension
from .tool import program


def main(arguments: list[str] | None = None) -> int:
    """Runs a command of the command line.

    Parameters
    ----------
    arguments
        the words after the program's name; None for those of this process.

    Returns
    -------
    int
        the exit status: 0 if the command succeeded, 1 if it failed, 2 for bad usage, 130 if it was interrupted.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (OSError, ValueError) as error:
        print(f"mpo_checkpoint: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"mpo_checkpoint: this command needs the package {error.name}; run: pip install torch transformers", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"mpo_checkpoint: a package can't be imported ({error}); run: pip install --upgrade torch transformers", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        output = getattr(options, "output", None)
        unfinished = None if output is None else output.with_name(f"{output.name}.unfinished")
        if unfinished is not None and unfinished.exists():
            print(f"\nmpo_checkpoint: {unfinished}: has what is done so far; run the same command again to continue", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mpo_checkpoint", description="Statistics and adapters for mpo: the commands that need Python.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    calibrate = commands.add_parser(
        "calibrate",
        help="write the statistics that 'mpo convert --calibration' takes",
        description="Run a text through a model and write second moments of its layers' inputs and output gradients.",
    )
    calibrate.set_defaults(run=_calibrate)
    calibrate.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="a Hugging Face model folder")
    calibrate.add_argument(
        "text",
        type=Path,
        metavar="TEXT",
        help="a text file with one sample in each line; for a language model a text, which is cut into pieces",
    )
    calibrate.add_argument("-o", "--output", type=Path, required=True, metavar="STATS.safetensors", help="the result")
    calibrate.add_argument("--force", action="store_true", help="replace the result if it exists")
    calibrate.add_argument(
        "--task",
        metavar="TASK",
        help="features, causal-lm, masked-lm, seq2seq-lm, sequence-classification, token-classification or "
        "question-answering: the head with which the model is loaded (default: causal-lm if config.json names such an "
        "architecture, otherwise features)",
    )
    calibrate.add_argument(
        "--objective",
        choices=("loss", "fisher", "projections"),
        help="what is differentiated: the loss of the text's next tokens (default for causal-lm), the loss of sampled "
        "tokens, or random projections of the output (for all other tasks, which allow nothing else)",
    )
    calibrate.add_argument(
        "--of",
        metavar="OUTPUT",
        help="the output whose change is measured: embedding, hidden, logits or auto (default), which is the sentence "
        "embedding if the folder has one, the logits with a task, otherwise the hidden states",
    )
    calibrate.add_argument(
        "--projections",
        type=_positive,
        metavar="N",
        help="the number of gradients for each sample: random projections (default: 12; 1 for causal-lm) or, with "
        "--objective fisher, sampled texts (default: 1)",
    )
    calibrate.add_argument("--seed", type=int, default=0, metavar="N", help="the seed of the random numbers (default: 0)")
    calibrate.add_argument(
        "--samples", type=_positive, metavar="N", help="causal-lm: the number of pieces, spread evenly over the text (default: 32)"
    )
    calibrate.add_argument(
        "--batch-size",
        type=_positive,
        metavar="N",
        help="the number of samples at a time (default: 32; for causal-lm as many as make 2048 tokens)",
    )
    calibrate.add_argument(
        "--max-length",
        type=_positive,
        metavar="N",
        help="the most tokens of a sample (default: 128), or the tokens of a piece (default: 512)",
    )
    calibrate.add_argument(
        "--part",
        type=_part,
        metavar="K/N",
        help="causal-lm: run only part K of N of the samples; 'merge-statistics' joins the parts",
    )
    calibrate.add_argument(
        "--device", default="cpu", metavar="DEVICE", help="causal-lm: the device that computes the blocks (default: cpu)"
    )
    calibrate.add_argument(
        "--restart",
        action="store_true",
        help="causal-lm: begin anew; without it the same command continues a run that was killed, from "
        "STATS.safetensors.unfinished",
    )
    calibrate.add_argument(
        "--include",
        action="append",
        metavar="GLOB",
        help="only matrices that this glob matches; repeatable (default: "
        "all; for causal-lm those of the model's blocks)",
    )
    calibrate.add_argument(
        "--exclude", action="append", metavar="GLOB", default=[], help="leave out matrices that this glob matches; repeatable"
    )
    calibrate.add_argument(
        "--min-side", type=_positive, default=64, metavar="N", help="leave out matrices with a smaller side (default: 64)"
    )
    calibrate.add_argument(
        "--max-gram",
        type=int,
        default=8192,
        metavar="N",
        help="keep only the diagonal of sides that are larger than N (default: 8192)",
    )
    calibrate.add_argument(
        "--element-weights",
        action="store_true",
        help="write the mean squared gradient of every element instead of second moments, so that a conversion weights "
        "errors element by element (TFWSVD); the whole model is loaded, and the file is as large as it",
    )
    calibrate.add_argument(
        "--dtype", choices=("f32", "f64"), default="f32", help="the type of the numbers in the file (default: f32); sums are always f64"
    )

    merge = commands.add_parser(
        "merge-statistics",
        help="make one file of the parts that 'calibrate --part' wrote",
        description="Write the means over all samples of several statistics files of one model.",
    )
    merge.set_defaults(run=_merge)
    merge.add_argument("parts", type=Path, nargs="+", metavar="PART", help="a statistics file; each part has other samples")
    merge.add_argument("-o", "--output", type=Path, required=True, metavar="STATS.safetensors", help="the result")
    merge.add_argument("--force", action="store_true", help="replace the result if it exists")

    adapt = commands.add_parser(
        "adapt",
        help="correct a compressed model with a LoRA adapter, as 'mpo adapt' does",
        description="Run 'mpo adapt' with these arguments; 'mpo help adapt' describes them.",
        add_help=False,
    )
    adapt.set_defaults(run=_adapt)
    adapt.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


def _adapt(options: argparse.Namespace) -> None:
    path = program()
    try:
        result = subprocess.run([path, "adapt", *options.arguments])
    except OSError as error:
        raise ValueError(
            f"{path}: can't be run ({error.strerror}); put the path of the program mpo into the environment variable MPO, or unset it"
        ) from None
    if result.returncode:
        raise SystemExit(result.returncode)


def _merge(options: argparse.Namespace) -> None:
    from .merging import merge_statistics

    _refuse_to_replace(options)
    samples, tokens = merge_statistics(options.parts, options.output)
    each = _tokens_per_dimension(options.output)
    print(f"{options.output}: {len(options.parts)} parts, {samples} samples, {tokens} tokens{each}")


MIN_TOKENS_PER_DIMENSION = 4
"""With fewer tokens per dimension of the largest side, `calibrate` warns that the statistics are noisy."""


def _tokens_per_dimension(path: Path, *, is_whole: bool = True) -> str:
    """The number of tokens per dimension, for the last line of output; warns if it is low and the file is not one part of several."""
    tokens = tokens_per_dimension(path)
    if tokens == float("inf"):
        return ""
    if is_whole and tokens < MIN_TOKENS_PER_DIMENSION:
        print(
            f"mpo_checkpoint: {path}: has {tokens:.1f} tokens per dimension of its largest side; with fewer than "
            f"{MIN_TOKENS_PER_DIMENSION} the statistics are mostly noise: give more text or more samples",
            file=sys.stderr,
        )
    return f" ({tokens:.1f} per dimension of the largest side)"


def _refuse_to_replace(options: argparse.Namespace) -> None:
    if not options.output.absolute().parent.is_dir():
        raise ValueError(f"{options.output}: can't be written because its folder does not exist; make the folder first")
    if options.output.is_dir():
        raise ValueError(f"{options.output}: is a folder; give the name of a file")
    if options.output.exists() and not options.force:
        raise ValueError(f"{options.output}: exists; pass --force to replace it")


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"'{text}' is not a part such as 2/4")
    return int(number), int(count)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of at least 1")
    return int(text)


def _calibrate(options: argparse.Namespace) -> None:
    configuration(options.model)
    require_dense(options.model)
    _refuse_to_replace(options)

    from .huggingface import TASKS, task_of

    options.task = options.task or task_of(options.model)
    if options.task not in TASKS:
        raise ValueError(f"unknown task '{options.task}'; choose one of {', '.join(TASKS)}")
    if options.task == "causal-lm":
        statistics = _calibrate_language_model(options)
    else:
        statistics = _calibrate_encoder(options)
    if statistics.skipped:
        count, first = len(statistics.skipped), ", ".join(statistics.skipped[:6])
        print(
            f"mpo_checkpoint: matrices left out ({count}), because no sample reaches them or the output does not depend on them: "
            f"{first}{', …' if count > 6 else ''}",
            file=sys.stderr,
        )
    print(
        f"{options.output}: {len(statistics.matrices)} matrices, {statistics.samples} samples, "
        f"{statistics.tokens} tokens"
        f"{_tokens_per_dimension(options.output, is_whole=not options.part)}; inputs are the rows of {len(statistics.input_rows or [])} matrices and "
        "the columns of the others"
    )


DTYPES = {"f32": "float32", "f64": "float64"}


def _calibrate_language_model(options: argparse.Namespace) -> Statistics:
    from .huggingface import calibrate_language_model
    from .objectives import Objective
    from .pieces import text_pieces

    kind = options.objective or "loss"
    if kind == "loss" and options.projections:
        raise ValueError("--projections has no effect on the objective 'loss'; give --objective projections or fisher")
    if options.of not in (None, "auto", "logits"):
        raise ValueError(f"--of {options.of} is for other tasks; leave it out: a causal language model is measured by its logits")
    pieces = text_pieces(options.model, options.text, options.max_length or 512, options.samples or 32)
    first = 0
    if options.part:
        number, parts = options.part
        first, end = (len(pieces) * index // parts for index in (number - 1, number))
        if first == end:
            raise ValueError(f"--part {number}/{parts} has none of the {len(pieces)} samples; choose fewer parts")
        pieces = pieces[first:end]
    return calibrate_language_model(
        options.model,
        pieces,
        options.output,
        objective=Objective(kind, options.projections or 1, options.seed, first),
        include=options.include,
        exclude=options.exclude,
        min_side=options.min_side,
        max_gram=options.max_gram,
        has_element_weights=options.element_weights,
        dtype=DTYPES[options.dtype],
        batch_size=options.batch_size,
        device=options.device,
        is_restarted=options.restart,
        progress=_Progress() if sys.stderr.isatty() else lambda done, total: None,
        notice=lambda text: print(f"mpo_checkpoint: {text}", file=sys.stderr),
    )


def _calibrate_encoder(options: argparse.Namespace) -> Statistics:
    from .huggingface import calibrate_folder
    from .text_batches import read_samples

    if options.objective not in (None, "projections"):
        raise ValueError(f"--objective {options.objective} needs --task causal-lm; the task '{options.task}' has no next tokens")
    if options.samples or options.part or options.restart or options.device != "cpu":
        raise ValueError("--samples, --part, --restart and --device are for --task causal-lm; for other tasks every line is a sample")
    statistics = calibrate_folder(
        options.model,
        read_samples(options.text),
        task=options.task,
        output=options.of or "auto",
        batch_size=options.batch_size or 32,
        max_length=options.max_length or 128,
        projections=options.projections or 12,
        seed=options.seed,
        include=options.include or ["*"],
        exclude=options.exclude,
        min_side=options.min_side,
        max_gram=options.max_gram,
        has_element_weights=options.element_weights,
        show_progress=sys.stderr.isatty(),
    )
    if not statistics.tensors:
        raise ValueError(f"{options.model}: no matrix is left to write statistics of; see --include and --min-side")
    statistics.save(options.output, dtype=DTYPES[options.dtype])
    return statistics


class _Progress:
    """Shows on a terminal how much is done and how long the rest will take."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        if self.first is None:
            self.first = done  # an earlier run did that much, so it does not count for the speed of this one
        if done == self.first:
            return
        left = (time.monotonic() - self.start) / (done - self.first) * (total - done)
        end = "\n" if done == total else ""
        print(f"\r{100 * done // total:3d} %, {left:.0f} s left   ", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
