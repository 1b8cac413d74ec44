"""Samples of text as batches of token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .model_folder import read_text, tokenizer_of


class TextBatches:
    """Samples as batches of token ids; samples of similar length are in one batch, so that there is little padding.

    Parameters
    ----------
    folder
        the model folder, whose tokenizer is used.
    samples
        the texts.
    batch_size
        the number of samples of a batch.
    max_length
        the maximum number of tokens of a sample; more are cut off.

    Raises
    ------
    ValueError
        if the folder's tokenizer can't be read.
    """

    def __init__(self, folder: Path | str, samples: Iterable[str], *, batch_size: int = 32, max_length: int = 128):
        self.tokenizer = tokenizer_of(folder)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.samples = sorted(samples, key=len)
        self.batch_size, self.max_length = batch_size, max_length

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self.samples), self.batch_size):
            yield self.encode(self.samples[start : start + self.batch_size])

    def encode(self, texts: Sequence[str]) -> Any:
        """A batch with ``input_ids`` and ``attention_mask``, ``[samples, positions]``."""
        return self.tokenizer(
            list(texts), return_tensors="pt", padding=True, truncation=True, max_length=self.max_length
        )


def read_samples(path: Path | str) -> list[str]:
    """The lines of a text file that are not blank.

    Raises
    ------
    ValueError
        if the file can't be read, is not UTF-8, or has only blank lines.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
