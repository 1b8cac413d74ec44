"""Packing: entries as shuffled, deflated blocks."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any

import numpy as np

from .errors import CheckpointError
from .safetensors_file import BITS, Entry

CODEC = "shuffle-deflate"
_MAXIMUM_BLOCK_BYTES = 1 << 24
_INFLATED_BYTES = 1032
"""One deflated byte can become at most this many bytes."""


def packing_problem(packed: Any, entries: Mapping[str, tuple[str, tuple[int, ...]]]) -> str | None:
    """How the member ``packed`` of a core or a dense tensor contradicts the format; None if it does not.

    Parameters
    ----------
    packed
        the JSON value of the member.
    entries
        dtype and shape, before packing, of the core's or tensor's entries, by name.
    """
    if not isinstance(packed, list) or not all(isinstance(member, dict) for member in packed):
        return "has a 'packed' that is not a list of objects"
    names = [member.get("name") for member in packed]
    for member, name in zip(packed, names):
        if not isinstance(name, str) or name not in entries or names.count(name) > 1:
            return f"packs '{name}', which is not one of its entries or is packed twice"
        dtype, shape = entries[name]
        if member.get("codec") != CODEC:
            return f"packs '{name}' with the unknown codec '{member.get('codec')}'; update mpo_checkpoint"
        if member.get("dtype") != dtype or member.get("shape") != list(shape):
            return f"packs '{name}' as {member.get('dtype')} {member.get('shape')}, it is {dtype} {list(shape)}"
        block, size = member.get("block_bytes"), member.get("bytes")
        if type(block) is not int or block < 8 or block > _MAXIMUM_BLOCK_BYTES or block % 8:
            return f"packs '{name}' in blocks of {block} bytes"
        total = prod(shape) * BITS[dtype] // 8
        table = _table_bytes(total, block, _element_size(dtype))
        if type(size) is not int or not table < size < total or size - table < total // _INFLATED_BYTES:
            return f"packs the {total} bytes of '{name}' in {size}, which is impossible"
    return None


def unpacked(stored: Entry, packed: Mapping[str, Any], where: str) -> Entry:
    """A packed entry, unpacked; its blocks are unpacked in parallel.

    Parameters
    ----------
    stored
        the packed entry in the shards; it has as many bytes as ``packed`` says.
    packed
        the object that describes it in the manifest; it has no `packing_problem`.
    where
        the name of the entry, for messages.

    Raises
    ------
    CheckpointError
        if the entry is damaged.
    """
    dtype, shape, block_bytes = packed["dtype"], tuple(packed["shape"]), packed["block_bytes"]
    size = _element_size(dtype)
    total = prod(shape) * BITS[dtype] // 8
    table_bytes = _table_bytes(total, block_bytes, size)
    table = np.frombuffer(stored.data[:table_bytes].tobytes(), "<u4").reshape(-1, size + 1)
    sizes = table[:, :-1].astype(np.int64)
    elements = np.full(len(table), block_bytes // size)
    elements[-1] = (total - (len(table) - 1) * block_bytes) // size
    if (sizes < 1).any() or (sizes > elements[:, None]).any() or table_bytes + int(sizes.sum()) != len(stored.data):
        raise CheckpointError(where, "has a table that does not fit it: it is damaged; convert the model again")
    starts = table_bytes + np.concatenate(([0], np.cumsum(sizes.sum(1))[:-1]))
    result = np.empty(total, np.uint8)

    def unpack(block: int) -> None:
        target = result[block * block_bytes : (block + 1) * block_bytes]
        planes, offset, count = target.reshape(-1, size), int(starts[block]), int(elements[block])
        for plane, length in enumerate(sizes[block].tolist()):
            data = stored.data[offset : offset + length]
            planes[:, plane] = data if length == count else _inflated(data, count, f"{where}: block {block}")
            offset += length
        if zlib.crc32(target.data) != table[block, -1]:
            raise CheckpointError(where, f"block {block} has a CRC-32 that differs: it is damaged; convert the model again")

    if len(table) > 1:
        with ThreadPoolExecutor() as pool:
            list(pool.map(unpack, range(len(table))))
    else:
        unpack(0)
    return Entry(dtype, shape, result)


def _inflated(data: np.ndarray, count: int, where: str) -> np.ndarray:
    """Inflates a plane, all of which must give exactly ``count`` bytes."""
    inflater = zlib.decompressobj(-15)
    try:
        content = inflater.decompress(data.tobytes(), count)
        if len(content) == count and not inflater.eof:  # only the end-of-stream mark may be left
            content += inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error:
        content = b""
    if len(content) != count or not inflater.eof or inflater.unused_data or inflater.unconsumed_tail:
        raise CheckpointError(where, f"can't be inflated to {count} bytes: it is damaged; convert the model again")
    return np.frombuffer(content, np.uint8)


def _element_size(dtype: str) -> int:
    return max(1, BITS[dtype] // 8)


def _table_bytes(total: int, block_bytes: int, size: int) -> int:
    return -(-total // block_bytes) * (size + 1) * 4
