"""Whether there is enough free memory to keep something only for speed."""

from __future__ import annotations

from pathlib import Path

import torch

_SHARE = 8
"""A single array that is kept only for speed may take at most this part, 1/8, of the free memory."""


def has_room(size: int, device: torch.device) -> bool:
    """Whether this number of bytes may be taken only for speed; True if the free memory is not known."""
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
