"""The output of a model in a Hugging Face folder whose change is measured: embedding, hidden states or logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

OUTPUTS = ("auto", "embedding", "hidden", "logits")


@dataclass(frozen=True)
class SentencePooling:
    """How a sentence-embedding model makes one vector of its hidden states.

    Attributes
    ----------
    mode
        ``"mean"`` over the positions, or ``"cls"``: the first position.
    is_normalized
        whether the vector is divided by its length.
    """

    mode: str = "mean"
    is_normalized: bool = True

    @classmethod
    def of(cls, folder: Path) -> SentencePooling | None:
        """The pooling that a folder of the sentence-transformers library asks for; None for other folders.

        Raises
        ------
        ValueError
            if the folder has another pooling than mean or cls, or other modules.
        """
        if not (folder / "modules.json").exists():
            return None
        modules = json.loads((folder / "modules.json").read_text("utf-8"))
        kinds = [module["type"].rpartition(".")[2] for module in modules]
        if "Pooling" not in kinds:
            return None
        if unknown := set(kinds) - {"Transformer", "Pooling", "Normalize"}:
            raise ValueError(f"{folder}: has unknown modules ({', '.join(sorted(unknown))}); give --of hidden")
        options = json.loads((folder / modules[kinds.index("Pooling")]["path"] / "config.json").read_text("utf-8"))
        mode = options.get("pooling_mode") or next(
            (mode for mode, key in (("mean", "mean_tokens"), ("cls", "cls_token")) if options.get(f"pooling_mode_{key}")),
            "other",
        )
        if mode not in ("mean", "cls"):
            raise ValueError(f"{folder}: has a pooling other than mean and cls, which is not supported; give --of hidden")
        return cls(mode, "Normalize" in kinds)

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The vectors ``[samples, features]`` of hidden states ``[samples, positions, features]`` with a mask, 0 for padding."""
        if self.mode == "cls":
            pooled = hidden[:, 0]
        else:
            weights = mask[..., None].to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        return nn.functional.normalize(pooled, dim=-1) if self.is_normalized else pooled


def sentence_embedding(hidden: Tensor, mask: Tensor) -> Tensor:
    """The embedding of each sample: the mean of its hidden states, normalised.

    Parameters
    ----------
    hidden
        ``[samples, positions, features]``.
    mask
        ``[samples, positions]``, 1 where there is no padding.

    Returns
    -------
    Tensor
        ``[samples, features]`` of unit length.
    """
    return SentencePooling()(hidden, mask)


def output_function(folder: Path, task: str, output: str = "auto") -> tuple[Callable[[nn.Module, Any], Tensor], str]:
    """A function of model and batch that gives the output, and a name for the output.

    Parameters
    ----------
    folder
        the model folder.
    task
        the head with which the model is loaded.
    output
        one of `OUTPUTS`. ``"auto"`` is the logits for any task but ``"features"``; for that, the sentence embedding if the
        folder has one, otherwise the last hidden states.

    Raises
    ------
    ValueError
        if there is no such output, or if the folder or the task does not have it.
    """
    if output not in OUTPUTS:
        raise ValueError(f"unknown output '{output}'; choose one of {', '.join(OUTPUTS)}")
    pooling = SentencePooling.of(folder) if task == "features" and output in ("auto", "embedding") else None
    if output == "auto":
        output = "logits" if task != "features" else "embedding" if pooling else "hidden"
    if output == "embedding" and pooling is None:
        raise ValueError(
            f"{folder}: has no sentence embedding, which takes a folder of a sentence-embedding model and the task 'features'; "
            "give --of hidden"
        )

    def call(model: nn.Module, batch: Any) -> Any:
        batch = dict(batch)
        if model.config.is_encoder_decoder:
            batch["decoder_input_ids"] = batch["input_ids"]
        return model(**batch)

    def embedding(model: nn.Module, batch: Any) -> Tensor:
        return pooling(call(model, batch).last_hidden_state, batch["attention_mask"])

    def hidden(model: nn.Module, batch: Any) -> Tensor:
        result = call(model, batch)
        if getattr(result, "last_hidden_state", None) is None:
            raise ValueError("only the task 'features' has hidden states as its output; give --task features")
        return result.last_hidden_state

    def logits(model: nn.Module, batch: Any) -> Tensor:
        result = call(model, batch)
        if (start := getattr(result, "start_logits", None)) is not None:
            return torch.stack([start, result.end_logits], -1)
        if getattr(result, "logits", None) is None:
            raise ValueError(f"a model for the task '{task}' has no logits; give another --of or --task")
        return result.logits

    return {
        "embedding": (embedding, "the sentence embedding"),
        "hidden": (hidden, "the last hidden states"),
        "logits": (logits, "the logits"),
    }[output]
