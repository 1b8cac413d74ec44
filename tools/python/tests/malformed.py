"""The damaged checkpoints of ``fixtures/malformed``, made as the top of tools/fixtures/malformed_fixtures.py says."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[3] / "fixtures/malformed"
CASES = json.loads((FOLDER / "cases.json").read_text("utf-8"))["cases"]


def damaged(case, folder):
    """A copy of the base with a case applied to it."""
    shutil.copytree(FOLDER / "base.mpo", folder)
    path = folder / "manifest.json"
    if "manifest_text" in case:
        path.write_text(case["manifest_text"], "utf-8")
        return folder
    for edit in case.get("bytes", []):
        _edit_file(folder / edit["file"], edit)
    manifest = json.loads(path.read_text("utf-8"))
    if case.get("refresh"):
        for shard in manifest["shards"]:
            content = (folder / shard["name"]).read_bytes()
            shard |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    for edit in case["edits"]:
        _edit_manifest(manifest, edit)
    if case.get("sign", True):
        blank = json.dumps(manifest | {"manifest_sha256": "0" * 64})
        path.write_text(blank.replace('"manifest_sha256": "' + "0" * 64, '"manifest_sha256": "' + hashlib.sha256(blank.encode()).hexdigest()))
    else:
        path.write_text(json.dumps(manifest), "utf-8")
    return folder


def _edit_file(path, edit):
    content = bytearray(path.read_bytes())
    if "truncate" in edit:
        assert edit["truncate"] < len(content)
        del content[edit["truncate"] :]
    elif "find" in edit:
        find, replace = edit["find"].encode(), edit["replace"].encode()
        assert content.count(find) == 1 and len(find) == len(replace)
        content = content.replace(find, replace)
    else:
        data = bytes.fromhex(edit["hex"])
        assert content[edit["offset"] :][: len(data)] != data
        content[edit["offset"] : edit["offset"] + len(data)] = data
    path.write_bytes(content)


def _edit_manifest(manifest, edit):
    *parents, last = edit["path"].split("/")[1:]
    place = manifest
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    if isinstance(place, list):
        if last == "-":
            place.append(edit["value"])
        elif edit.get("remove"):
            del place[int(last)]
        else:
            place[int(last)] = edit["value"]
    elif edit.get("remove"):
        del place[last]
    else:
        place[last] = edit["value"]
