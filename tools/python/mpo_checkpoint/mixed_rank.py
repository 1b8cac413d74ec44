"""Mixed-rank fine-tuning (LPAF, arXiv 2306.14152): matrices stand in for their factors, less and less often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .mpo_matrix import MPOMatrix
from .names import checkpoint_name


class MixedRank:
    """Before each batch, every matrix made of cores is replaced by the matrix it came from, by chance.

    The chance falls linearly from ``probability`` to nought. A model that is trained so sees, at each layer, now the
    sparse or dense matrix and now its factors: the factors adapt to inputs that are not yet spoiled. Matrices that stand in
    are not trained.

    Example: ::

        with MixedRank(model, "pruned-model", probability=0.8, until=0.7) as mixed:
            for step in range(steps):
                mixed.draw(step / steps)
                ...                                 # one step of training

    Parameters
    ----------
    model
        loaded by `load_into` or `from_pretrained`.
    matrices
        what stands in: a model folder, or tensors by the names of the model or of its checkpoint. Weights of which it has
        none always stay factors.
    probability
        that a matrix stands in, at the beginning.
    until
        the part of the training after which none does.
    seed
        of the draws.

    Raises
    ------
    ValueError
        for a probability or a part that is none, for a matrix of another shape, and where no matrix fits.
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
                raise ValueError(f"{name} is {list(matrix.shape)}, the factors are those of {list(weight.shape)}")
            found[weight] = matrix.detach().to(weight.device, weight.dtype)
        if not found:
            raise ValueError("no matrix fits a weight that is made of cores; give the matrices of this model")
        self.matrices = found

    def probability(self, progress: float) -> float:
        """That a matrix stands in for its factors.

        Parameters
        ----------
        progress
            how much of the training is done: 0 at its beginning, 1 at its end.

        Returns
        -------
        float
            from 0 to 1.
        """
        return self.start * max(0.0, 1 - progress / self.until)

    def draw(self, progress: float) -> int:
        """Decides for every matrix anew.

        Parameters
        ----------
        progress
            see `probability`.

        Returns
        -------
        int
            how many stand in.
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
    """What gives a tensor by name, and the names that there are."""
    if isinstance(matrices, Mapping):
        return matrices.__getitem__, set(matrices)
    from safetensors import safe_open

    paths = sorted(Path(matrices).glob("*.safetensors"))
    if not paths:
        raise ValueError(f"{matrices}: has no *.safetensors files")
    files: dict[str, Any] = {}
    for path in paths:
        file = safe_open(path, "pt")
        files |= dict.fromkeys(file.keys(), file)
    return (lambda name: files[name].get_tensor(name)), set(files)
