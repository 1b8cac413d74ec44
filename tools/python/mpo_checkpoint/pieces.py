"""Cuts a text into pieces of equally many tokens, without regard to lines, for a language model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .model_folder import read_text, tokenizer_of


def text_pieces(folder: Path | str, text: Path | str, length: int, count: int | None = None) -> Tensor:
    """Pieces of a text, spread evenly over it.

    Parameters
    ----------
    folder
        the model folder, whose tokenizer is used.
    text
        a UTF-8 file.
    length
        the number of tokens of a piece. If the tokenizer begins every text with a special token, each piece begins with it.
    count
        the number of pieces; None for all.

    Returns
    -------
    Tensor
        token ids ``[count, length]``.

    Raises
    ------
    ValueError
        if the text can't be read or is too short, or if the folder's tokenizer can't be read.
    """
    content = read_text(text)
    tokenizer = tokenizer_of(folder)
    ids = tokenizer(content, add_special_tokens=False, verbose=False)["input_ids"]
    begin = tokenizer("")["input_ids"][:1]
    if begin != [tokenizer.bos_token_id]:
        begin = []
    size = length - len(begin)
    if size < 2:
        raise ValueError(f"pieces of {length} tokens are too short; give a larger --max-length")
    whole = len(ids) // size
    if whole < (count or 1):
        remedy = f"--samples {whole} or " if whole else ""
        raise ValueError(
            f"{text}: has {len(ids)} tokens, enough for {whole} pieces of {length} tokens, but {count or 1} are needed; "
            f"give a longer text, {remedy}a smaller --max-length"
        )
    starts = [index * whole // count * size for index in range(count)] if count else range(0, whole * size, size)
    return torch.tensor([begin + ids[start : start + size] for start in starts])
