"""A checkpoint in several files, listed by an index: `model.safetensors.index.json` and its relatives."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from layerscope.checkpoints import safetensors, torch_legacy, torch_zip
from layerscope.checkpoints.base import Checkpoint
from layerscope.checkpoints.storage import Damage, inside, show

__all__ = ["find_index", "open", "sniff"]

_SHARDS: tuple[Any, ...] = (safetensors, torch_zip, torch_legacy)
MAX_INDEX_BYTES = 64 << 20
MAX_SHARDS = 2000


def find_index(folder: Path) -> Path | None:
    """The index in a folder, None if there is none or the choice is not clear."""
    indexes = sorted(folder.glob("*.index.json"))
    preferred = [path for path in indexes if path.name == "model.safetensors.index.json"]
    return preferred[0] if preferred else indexes[0] if len(indexes) == 1 else None


def sniff(head: bytes, path: Path) -> bool:
    """A JSON object with a weight_map."""
    if not head.lstrip().startswith(b"{") or path.stat().st_size > MAX_INDEX_BYTES:
        return False
    return b'"weight_map"' in head or b'"weight_map"' in path.read_bytes()


def open(path: Path) -> Checkpoint:
    """The tensors of all shards, in the order of the index."""
    places = _weight_map(path)
    names = sorted(set(places.values()))
    if len(names) > MAX_SHARDS:
        raise Damage(f"lists {len(names)} files, more than {MAX_SHARDS}")
    shards = {name: _open_shard(path.parent, name) for name in names}
    known = {(name, spec.name): spec for name, shard in shards.items() for spec in shard.specs}
    specs, loaders = [], {}
    for tensor, shard in places.items():
        if (shard, tensor) not in known:
            raise Damage(f"says that {show(tensor)} lies in {show(shard)}, which does not hold it")
        specs.append(known[shard, tensor])
        if tensor in shards[shard].loaders:
            loaders[tensor] = partial(shards[shard].read, known[shard, tensor])
    unlisted = len(known) - len(specs)
    warnings = [f"{show(name)}: {line}" for name, shard in shards.items() for line in shard.warnings]
    if unlisted:
        warnings.append(f"the shards hold {unlisted} tensors that the index does not list")
    foreign = sorted({name for shard in shards.values() for name in shard.foreign})
    kinds = {shard.format for shard in shards.values()}
    format = f"sharded {kinds.pop()}" if len(kinds) == 1 else "sharded"
    return Checkpoint(path, format, specs, loaders, foreign, warnings, {"shards": len(shards)})


def _weight_map(path: Path) -> dict[str, str]:
    try:
        index: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Damage(f"is no JSON ({show(error)})") from error
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise Damage("has no weight_map from tensors to files", "give the index of a sharded checkpoint")
    return places


def _open_shard(folder: Path, name: str) -> Any:
    shard = inside(folder, name)
    if not shard.is_file():
        raise Damage(f"lists {show(name)}, which is not in its folder", "put all of its files side by side")
    with shard.open("rb") as file:
        head = file.read(4096)
    for reader in _SHARDS:
        if reader.sniff(head, shard):
            try:
                return reader.open(shard)
            except Damage as damage:
                raise Damage(f"in {show(name)}: {damage}", "") from damage
    raise Damage(f"lists {show(name)}, which begins with {head[:8].hex(' ')}, as no safetensors or PyTorch file does")
