"""Mixed-rank fine-tuning (LPAF, arXiv 2306.14152): layers use their original matrix instead of its factors, less and less often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .mpo_matrix import MPOMatrix
from .names import checkpoint_name


class MixedRank:
    """Randomly replaces matrices made of cores by the matrices that they approximate, anew before each batch.

    The probability falls linearly from ``probability`` to zero. In this way factors are trained on inputs to which the layers
    before them have not yet added their errors. The matrices that stand in are not trained.

    Example: ::

        with MixedRank(model, "pruned-model", probability=0.8, until=0.7) as mixed:
            for step in range(steps):
                mixed.draw(step / steps)
                ...                                 # one step of training

    Parameters
    ----------
    model
        a model loaded by `load_into` or `from_pretrained`.
    matrices
        the matrices that stand in: a model folder, or tensors by their names in the model or in its checkpoint. A weight for
        which there is no matrix always uses its factors.
    probability
        the probability, at the start, that a matrix stands in for its factors: from 0 to 1.
    until
        the part of the training after which no matrix stands in: above 0, at most 1.
    seed
        the seed of the random choices.

    Raises
    ------
    ValueError
        if ``probability`` or ``until`` is out of its range, if a matrix has another shape than its factors, or if no matrix fits.
    """

    def __init__(
        self,
        model: nn.Module,
        matrices: Path | str | Mapping[str, Tensor],
        probability: float = 0.5,
        *,
        until: float = 1.0,
        seed: int = 0,
    ):
        if not 0 <= probability <= 1 or not 0 < until <= 1:
            raise ValueError(f"probability {probability}, until {until}: the first must be from 0 to 1, the second above 0 and at most 1")
        self.start, self.until = probability, until
        self._generator = torch.Generator().manual_seed(seed)
        get, stored = _reader(matrices)
        prefix, source = getattr(model, "base_model_prefix", ""), getattr(model, "mpo_source", None)
        found: dict[MPOMatrix, Tensor] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            weight = getattr(module, "weight", None)
            if not isinstance(weight, MPOMatrix) or weight in found:
                continue
            own = f"{path}.weight"
            name = checkpoint_name(own, stored, prefix) or (source.names.get(own) if source else None)
            if name not in stored:
                continue
            matrix = get(name)
            if matrix.shape != weight.shape:
                raise ValueError(
                    f"{name} is {list(matrix.shape)}, but its factors are those of a matrix {list(weight.shape)}; give the matrices of "
                    "this model"
                )
            found[weight] = matrix.detach().to(weight.device, weight.dtype)
        if not found:
            raise ValueError("none of the matrices belongs to a weight made of cores; give the matrices of this model")
        self.matrices = found

    def probability(self, progress: float) -> float:
        """The probability that a matrix stands in for its factors.

        Parameters
        ----------
        progress
            the finished part of the training: 0 at its start, 1 at its end.

        Returns
        -------
        float
            a probability from 0 to 1.
        """
        return self.start * max(0.0, 1 - progress / self.until)

    def draw(self, progress: float) -> int:
        """Chooses anew, for every matrix, whether it stands in for its factors.

        Parameters
        ----------
        progress
            see `probability`.

        Returns
        -------
        int
            the number of matrices that stand in.
        """
        chance = self.probability(progress)
        draws = torch.rand(len(self.matrices), generator=self._generator) < chance
        for (weight, matrix), stands_in in zip(self.matrices.items(), draws.tolist()):
            weight.stand_in = matrix if stands_in else None
        return int(draws.sum())

    def close(self) -> None:
        """Gives every layer its factors back."""
        for weight in self.matrices:
            weight.stand_in = None

    def __enter__(self) -> MixedRank:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _reader(matrices: Path | str | Mapping[str, Tensor]) -> tuple[Callable[[str], Tensor], set[str]]:
    """A function that gives a tensor by its name, and all names."""
    if isinstance(matrices, Mapping):
        return matrices.__getitem__, set(matrices)
    from safetensors import safe_open

    paths = sorted(Path(matrices).glob("*.safetensors"))
    if not paths:
        raise ValueError(f"{matrices}: has no *.safetensors files; give the folder of the model that was converted")
    files: dict[str, Any] = {}
    for path in paths:
        file = safe_open(path, "pt")
        files |= dict.fromkeys(file.keys(), file)
    return (lambda name: files[name].get_tensor(name)), set(files)
