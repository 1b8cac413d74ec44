#!/usr/bin/env python3
"""Trains a converted MiniLM to compute the outputs of the original on the lines of a text file; no labels are needed.

usage: finetune.py ORIGINAL_FOLDER TEXT [--checkpoint IN.mpo] [--output OUT.mpo] [--steps N | --minutes M]
                   [--train auxiliary | inner | all | lora | deep-lora] [--measure OTHER_TEXT]

Only the auxiliary cores and the vectors (biases, norms) are trained, unless --train says otherwise. Adapters are saved as terms
of the checkpoint's blocks; --adapter also writes them as a LoRA adapter of the PEFT library (without the vectors). Without
--checkpoint and --output the environment variables MPO_CHECKPOINT and MPO_OUTPUT give the paths, so that 'mpo squeeze' can run
the script as its --finetune command.
"""

import argparse
import contextlib
import fnmatch
import math
import os
import sys
import time

import torch
from embeddings import embed, load, mean_cosine, require_match
from distillation import Schedule, distill, distillation_loss, distillation_target, shuffled_batches
from mpo_checkpoint import MixedRank, MPOMatrix, add_deep_lora, add_lora, save, save_peft_adapter
from mpo_checkpoint.text_batches import TextBatches, read_samples


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("original", metavar="ORIGINAL_FOLDER", help="the dense model folder")
    parser.add_argument("text", metavar="TEXT", help="the training text, one sentence in each line")
    parser.add_argument(
        "--checkpoint", default=os.environ.get("MPO_CHECKPOINT"), metavar="IN.mpo", help="the checkpoint to train (default: $MPO_CHECKPOINT)"
    )
    parser.add_argument(
        "--output", default=os.environ.get("MPO_OUTPUT"), metavar="OUT.mpo", help="the trained checkpoint (default: $MPO_OUTPUT)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, default=None, metavar="N", help="the number of batches (default: 300)")
    length.add_argument("--minutes", type=float, metavar="M", help="instead of --steps: the computing time of each thread, in minutes")
    parser.add_argument(
        "--train", choices=("auxiliary", "inner", "all", "lora", "deep-lora"), default="auxiliary",
        help="what is trained besides the vectors: auxiliary cores (default), the square cores of deep factors, all cores and "
        "matrices, or adapters",
    )  # fmt: skip
    parser.add_argument(
        "--numbers", type=int, metavar="N", help="how many numbers the adapters have (default: about as many as the auxiliary cores)"
    )
    parser.add_argument("--adapter", metavar="FOLDER", help="also write the adapters to this folder, for the PEFT library")
    parser.add_argument(
        "--mixed-rank", type=float, metavar="P",
        help="with this probability, which falls to zero, a matrix of the dense model stands in for its factors",
    )  # fmt: skip
    parser.add_argument("--stand-ins", metavar="FOLDER", help="with --mixed-rank: the model with these matrices (default: ORIGINAL_FOLDER)")
    parser.add_argument("--measure", metavar="TEXT", help="print the mean cosine on these sentences before and after the training")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="the number of sentences of a batch (default: 32)")
    parser.add_argument(
        "--rate", type=float, default=0.03, help="the learning rate, relative to the size of a tensor's elements (default: 0.03)"
    )
    parser.add_argument(
        "--hidden", type=float, default=1.0, metavar="W",
        help="the weight of the hidden states in the loss at the start, which falls to 0 at the end (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--freeze", metavar="GLOB", help="do not train parameters whose names match, such as '*.self.key.*'"
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the seed of the order of the sentences (default: 0)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="the number of PyTorch's threads (default: 2)")
    options = parser.parse_args()
    if not options.checkpoint:
        parser.error("there is no checkpoint to train; give --checkpoint IN.mpo or set MPO_CHECKPOINT")
    is_adapter = options.train in ("lora", "deep-lora")
    if options.adapter and not is_adapter:
        parser.error("--adapter needs --train lora or --train deep-lora")

    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    teacher = load(options.original)
    batches = shuffled_batches(options.original, read_samples(options.text), options.batch_size, options.seed)
    student = load(options.checkpoint, "none" if is_adapter else options.train, vectors=True)
    require_match(student, teacher, options.checkpoint)
    if options.freeze:
        freeze(student, options.freeze)
    if is_adapter:
        first = next(shuffled_batches(options.original, read_samples(options.text), options.batch_size, options.seed))
        expected = distillation_target(teacher, first)
        adapt(student, options.train, options.numbers, lambda m: distillation_loss(m, expected, first, options.hidden))
    print(student.mpo_source.report)
    if options.measure:
        held_out = list(TextBatches(options.original, read_samples(options.measure)))
        reference = embed(teacher, held_out)
        print(f"before {mean_cosine(student, held_out, reference):.4f}", flush=True)

    schedule = Schedule(options.steps or (None if options.minutes else 300), options.minutes)
    start, recent = time.perf_counter(), []

    def report(step, loss):
        recent.append(loss)
        if step % 50 == 0:
            print(f"step {step}, loss {sum(recent) / len(recent):.4f}, {schedule.seconds:.0f} s", file=sys.stderr, flush=True)
            recent.clear()

    stand_ins = contextlib.nullcontext()
    if options.mixed_rank:
        stand_ins = MixedRank(student, options.stand_ins or options.original, options.mixed_rank, seed=options.seed)
    with stand_ins as mixed:
        distill(student, teacher, batches, schedule, options.rate, options.hidden, report, mixed)
    print(
        f"{schedule.step} steps, {schedule.seconds / 60:.1f} min of each of {options.threads} threads, "
        f"{(time.perf_counter() - start) / 60:.1f} min by the clock"
    )
    if options.measure:
        print(f"after  {mean_cosine(student, held_out, reference):.4f}")
    if options.output:
        save(student, options.output)
    if options.adapter:
        save_peft_adapter(student, options.adapter, base=options.original)


def freeze(model, glob):
    """Excludes the parameters whose names match a glob from training."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for name, parameter in model.named_parameters():
        if fnmatch.fnmatchcase(name, glob):
            parameter.requires_grad_(False)
    frozen = sum(parameter.numel() for parameter in trained if not parameter.requires_grad)
    if not frozen:
        sys.exit(f"finetune.py: --freeze '{glob}' matches no parameter that is trained; see model.named_parameters()")
    print(f"--freeze excludes {frozen:,} of {sum(p.numel() for p in trained):,} numbers from training")


def adapt(model, kind, numbers, loss):
    """Adds adapters of one rank to all layers made of cores, with about ``numbers`` trained numbers in total."""
    weights = [module for module in model.modules() if isinstance(module, MPOMatrix)]
    numbers = numbers or sum(core.numel() for weight in weights for core in weight.auxiliary_cores)
    if kind == "lora":
        add_lora(model, max(1, round(numbers / sum(sum(weight.matrix_shape) for weight in weights))))
    else:
        add_deep_lora(model, max(1, round(math.sqrt(numbers / len(weights) / 3))), loss)


try:
    main()
except (OSError, ValueError) as error:
    sys.exit(f"finetune.py: {error}")
