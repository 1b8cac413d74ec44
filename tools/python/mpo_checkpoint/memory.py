"""How much memory is free."""

from __future__ import annotations

from pathlib import Path

import torch

_SHARE = 8
"""Of the free memory, what is kept for speed alone may take this part at most at a time."""


def has_room(size: int, device: torch.device) -> bool:
    """Whether so many bytes may be taken for speed alone; they may where it is not known."""
    free = _free(device)
    return free is None or size * _SHARE <= free


def _free(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
