"""Reads Hugging Face model folders and text files; every error says what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def read_text(path: Path | str) -> str:
    """The content of a text file.

    Raises
    ------
    ValueError
        if the file can't be read, is not UTF-8, or is blank.
    """
    try:
        text = Path(path).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: is not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x}); convert it, for "
            "example with iconv, or give another file"
        ) from None
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({_first_line(error.strerror)}); give a text file") from None
    if not text.strip():
        raise ValueError(f"{path}: is empty; give a file with text")
    return text


def configuration(folder: Path | str) -> dict[str, Any]:
    """The members of a folder's ``config.json``.

    Raises
    ------
    ValueError
        if there is no such file, or if it is not a JSON object.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder}: is not a model folder: it has no config.json; give the folder of a Hugging Face model")
    return _json_object(path)


def require_dense(folder: Path | str) -> None:
    """Raises ValueError for the folder of an MPO checkpoint, whose layers made of cores get no statistics."""
    if (Path(folder) / "manifest.json").is_file():
        raise ValueError(
            f"{folder}: is an MPO checkpoint, and statistics are of dense models; give the folder that was converted, or what "
            "'mpo restore' makes of this one"
        )


def tokenizer_of(folder: Path | str) -> Any:
    """The folder's tokenizer.

    Raises
    ------
    ValueError
        if transformers can't read it.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{folder}: has no tokenizer that transformers can read; copy the tokenizer's files (tokenizer.json, "
            f"tokenizer_config.json) into it ({_first_line(error)})"
        ) from None


def weight_files(folder: Path | str) -> dict[str, Path] | None:
    """The safetensors file of each tensor, by the tensor's name; None if the folder has no such files.

    Raises
    ------
    ValueError
        if the index can't be read or names missing files, or if the file is damaged.
    """
    folder = Path(folder)
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if not index.exists():
        if not single.exists():
            return None
        with open_weights(single) as file:
            return dict.fromkeys(file.keys(), single)
    files = _json_object(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(f"{index}: has no valid 'weight_map'; copy the file again")
    for name in sorted(set(files.values())):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: the file {name} is missing, which {index.name} names; copy it into the folder")
    return {name: folder / file for name, file in files.items()}


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """A safetensors file, open within the context; it gives PyTorch tensors.

    Raises
    ------
    ValueError
        if the file is damaged, or lacks a tensor that is read within the context.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path}: is damaged or incomplete ({_first_line(error)}); copy it again"
        ) from None


@contextmanager
def loading(folder: Path | str) -> Iterator[None]:
    """A context in which transformers loads a model; its errors become one line.

    Raises
    ------
    ValueError
        if transformers can't load the model.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(
            f"{folder}: transformers can't load the model; check that the weights are complete and that config.json "
            f"belongs to them ({_first_line(error)})"
        ) from None


def require_device(device: str) -> None:
    """Raises ValueError for a device that PyTorch can't compute on."""
    import torch

    try:
        torch.ones(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"PyTorch can't compute on the device '{device}'; use cpu ({_first_line(error)})") from None


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON; copy it again ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: is not a JSON object; copy it again")
    return value


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
