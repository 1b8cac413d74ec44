"""What was loaded from a checkpoint into a model, and which parameters are trained."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class LoadedCheckpoint:
    """Where a model's tensors came from: the model's attribute ``mpo_source``, which `save` needs.

    Attributes
    ----------
    path
        the checkpoint's folder.
    digest
        the SHA-256 that its manifest records of itself.
    names
        the names of tensors in the checkpoint, by the names of the model's tensors and the paths of its `MPOMatrix` modules.
    report
        what was loaded, and which part of it is trained.
    merged
        tensors of the checkpoint that transformers merged into others. A model with such tensors can't be saved.
    """

    path: Path
    digest: str
    names: dict[str, str]
    report: LoadReport
    merged: list[str] = field(default_factory=list)


@dataclass
class LoadReport:
    """Numbers of parameters by role, and names of tensors that the checkpoint and the model do not have in common.

    The roles are ``central``, ``auxiliary`` and ``inner`` cores (inner: square cores between frames), ``bases`` (and
    permutations and scales; never trained), ``adapters`` that were added to layers later, ``vectors`` (biases, norms),
    ``matrices`` (stored dense) and ``new`` (in the model but not in the checkpoint).

    Attributes
    ----------
    parameters
        the numbers that the model holds. Whole cores have more numbers than the gauge compact stores.
    trainable
        how many of these numbers are trained: they require gradients.
    parameters_stored
        how many numbers the checkpoint stores of what was loaded, plus the new ones.
    parameters_before
        how many numbers the dense model has.
    new
        parameters of the model that the checkpoint does not have.
    unused
        tensors of the checkpoint that the model does not have.
    restored
        tensors that are made of cores in the checkpoint and dense in the model.
    integers
        tensors that stay integers, at least in part; these are not trained.
    """

    parameters: Counter[str] = field(default_factory=Counter)
    trainable: Counter[str] = field(default_factory=Counter)
    parameters_stored: int = 0
    parameters_before: int = 0
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    integers: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{'parameters':10} {'held':>12} {'trained':>12}"]
        for role in ("central", "auxiliary", "inner", "bases", "adapters", "vectors", "matrices", "new"):
            if self.parameters[role]:
                lines.append(f"{role:10} {self.parameters[role]:12,} {self.trainable[role]:12,}")
        held, trained = self.parameters.total(), self.trainable.total()
        lines.append(f"{'all':10} {held:12,} {trained:12,}")
        if self.parameters_before:
            lines.append(
                f"The dense model has {self.parameters_before:,} parameters: {self.parameters_stored / self.parameters_before:.1%} are "
                f"stored ({self.parameters_stored:,}), {trained / self.parameters_before:.1%} are trained."
            )
        if self.integers:
            lines.append(
                f"{len(self.integers)} tensors are stored as integers, at least in part; integers are never trained."
            )
        for what, names in (
            ("Not in the checkpoint, left unchanged", self.new),
            ("Not in the model, not loaded", self.unused),
            ("Restored to dense, because no layer made of cores can replace their layer", self.restored),
        ):
            if names:
                lines.append(f"{what}: {', '.join(names)}.")
        return "\n".join(lines)
