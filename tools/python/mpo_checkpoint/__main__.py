"""The command line: ``python -m mpo_checkpoint calibrate MODEL TEXT -o STATS.safetensors``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import __version__


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; 0 when it is done, 1 when it failed, 2 for bad usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (OSError, ValueError) as error:
        print(f"mpo_checkpoint: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(
            f"mpo_checkpoint: {error}; install the package with its extra: mpo-checkpoint[transformers]",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mpo_checkpoint", description="What Python does for mpo.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    calibrate = commands.add_parser(
        "calibrate",
        help="write the statistics that 'mpo convert --calibration' takes",
        description="Run a text through a model and write second moments of its layers' inputs and output gradients.",
    )
    calibrate.set_defaults(run=_calibrate)
    calibrate.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="a Hugging Face model folder")
    calibrate.add_argument("text", type=Path, metavar="TEXT", help="a text file, one sample a line")
    calibrate.add_argument("-o", "--output", type=Path, required=True, metavar="STATS.safetensors", help="the result")
    calibrate.add_argument("--force", action="store_true", help="replace the result if it is there already")
    calibrate.add_argument(
        "--task",
        default="features",
        metavar="TASK",
        help="features (default), causal-lm, masked-lm, seq2seq-lm, sequence-classification, token-classification or "
        "question-answering: the head the model is loaded with",
    )
    calibrate.add_argument(
        "--of",
        default="auto",
        metavar="OUTPUT",
        help="the output whose change matters: embedding, hidden, logits or auto (default): the sentence embedding "
        "where the folder has one, else the hidden states; the logits with a task",
    )
    calibrate.add_argument("--projections", type=_positive, default=12, metavar="N", help="of each output (default: 12)")
    calibrate.add_argument("--seed", type=int, default=0, metavar="N", help="of the projections (default: 0)")
    calibrate.add_argument("--batch-size", type=_positive, default=32, metavar="N", help="samples at a time (default: 32)")
    calibrate.add_argument(
        "--max-length", type=_positive, default=128, metavar="N", help="tokens of a sample at most (default: 128)"
    )
    calibrate.add_argument(
        "--include", action="append", metavar="GLOB", help="only matrices this matches; repeatable (default: all)"
    )
    calibrate.add_argument(
        "--exclude", action="append", metavar="GLOB", default=[], help="no matrices this matches; repeatable"
    )
    calibrate.add_argument(
        "--min-side", type=_positive, default=64, metavar="N", help="leave out smaller matrices (default: 64)"
    )
    calibrate.add_argument(
        "--max-gram",
        type=int,
        default=8192,
        metavar="N",
        help="of sides larger than this, keep the diagonal only (default: 8192)",
    )
    calibrate.add_argument(
        "--dtype", choices=("f32", "f64"), default="f32", help="of what is written (default: f32); sums are f64 always"
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _calibrate(options: argparse.Namespace) -> None:
    if not (options.model / "config.json").is_file():
        raise ValueError(f"{options.model}: is no model folder, it has no config.json")
    if options.output.exists() and not options.force:
        raise ValueError(f"{options.output}: is there already; --force replaces it")

    from .huggingface import calibrate_folder, read_samples

    samples = read_samples(options.text)
    statistics = calibrate_folder(
        options.model,
        samples,
        task=options.task,
        output=options.of,
        batch_size=options.batch_size,
        max_length=options.max_length,
        projections=options.projections,
        seed=options.seed,
        include=options.include or ["*"],
        exclude=options.exclude,
        min_side=options.min_side,
        max_gram=options.max_gram,
        show_progress=sys.stderr.isatty(),
    )
    if statistics.skipped:
        print(
            f"mpo_checkpoint: left out, the output does not depend on them: {', '.join(statistics.skipped)}",
            file=sys.stderr,
        )
    if not statistics.tensors:
        raise ValueError(f"{options.model}: no matrix is left to write statistics of; see --include and --min-side")
    statistics.save(options.output, dtype={"f32": "float32", "f64": "float64"}[options.dtype])
    print(
        f"{options.output}: {len(statistics.matrices)} matrices, {statistics.samples} samples, "
        f"{statistics.tokens} tokens; the rows of {len(statistics.input_rows or [])} matrices are inputs, "
        "the columns of the others"
    )


if __name__ == "__main__":
    sys.exit(main())
