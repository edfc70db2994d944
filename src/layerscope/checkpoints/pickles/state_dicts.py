"""Which tensors a pickled object holds, under which names: state dicts, nested checkpoints, whole modules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from layerscope.checkpoints.base import plain_values
from layerscope.checkpoints.storage import Damage, show

from .builders import Array, Tensor
from .objects import Dictionary, Global, Node, Opaque, as_python

__all__ = ["Contents", "Named", "find"]

#: where training scripts keep the weights of a network
WEIGHT_KEYS = frozenset(
    """
    state_dict model_state_dict model_state model net network module weights params
    ema ema_state_dict model_ema state_dict_ema params_ema ema_model shadow shadow_params
    generator discriminator teacher student
    """.split()  # noqa: SIM905 - words
)
#: words in the keys of what only training needs
_TRAINING = re.compile(r"(?:^|[^a-z])(?:opt|optim\w*|\w*sched\w*|scaler|amp|rng|lr|loss|callbacks|loops)(?:$|[^a-z])")
PREFIXES = ("module.", "_orig_mod.")
MAX_DEPTH = 100
MAX_NAME = 4000
#: characters of all names plus what visits cost; without a bound a few nested lists name 2**n tensors
MAX_WORK = 20_000_000
VISIT = 20


@dataclass(slots=True)
class Named:
    """A tensor under its name in the checkpoint."""

    name: str
    leaf: Tensor | Array
    role: str = "weight"


@dataclass(slots=True)
class Contents:
    """The tensors of a checkpoint in the file's order, and the plain values beside them."""

    tensors: list[Named] = field(default_factory=list)
    extra: dict[str, object] = field(default_factory=dict)
    stripped: dict[str, None] = field(default_factory=dict)

    def add_weights(self, leaves: Iterator[tuple[str, Tensor | Array]], prefix: str = "") -> None:
        """Add the weights of one network, without the prefix that a wrapper gave to all of them."""
        pairs = list(leaves)
        cut = _common_prefix([name for name, _ in pairs])
        if cut:
            self.stripped[cut] = None
        self.tensors += [Named(prefix + name[len(cut) :] or "tensor", leaf) for name, leaf in pairs]

    def add_training(self, leaves: Iterator[tuple[str, Tensor | Array]]) -> None:
        """Add what only training needs."""
        self.tensors += [Named(name, leaf, "optimizer") for name, leaf in leaves]


def find(root: Any) -> Contents:
    """Every tensor of a pickled object; weights are told apart from what only training needs."""
    walk, contents = _Walk(), Contents()
    if not isinstance(root, Dictionary):
        contents.add_weights(walk.leaves(root))
    elif groups := _weight_groups(walk, root):
        for key, value in root.items():
            if key in groups:
                contents.add_weights(walk.leaves(groups[key]), f"{key}." if len(groups) > 1 else "")
            else:
                contents.add_training(walk.leaves(value, _text(key)))
    else:
        training = {key: None for key, value in root.items() if _is_training(key) and not _is_leaf(value)}
        contents.add_weights(walk.leaves(Dictionary((k, v) for k, v in root.items() if k not in training)))
        for key in training:
            contents.add_training(walk.leaves(root[key], _text(key)))
    contents.extra = plain_values((_text(key), root[key]) for key in root) if isinstance(root, Dictionary) else {}
    if contents.stripped:
        contents.extra["stripped_prefix"] = ", ".join(contents.stripped)
    return contents


class _Walk:
    """Walks over a pickled object, together bounded in visits and in the length of names."""

    def __init__(self) -> None:
        self.left = MAX_WORK

    def leaves(self, value: Any, name: str = "") -> Iterator[tuple[str, Tensor | Array]]:
        """Every tensor below `value` with its dotted name."""
        return self._leaves(value, name, 0, set())

    def holds_tensors(self, value: Any) -> bool:
        """Whether there is any."""
        return next(self.leaves(value), None) is not None

    def _leaves(self, value: Any, name: str, depth: int, around: set[int]) -> Iterator[tuple[str, Tensor | Array]]:
        if _is_leaf(value):
            self._spend(VISIT + len(name))
            if len(name) > MAX_NAME:
                raise Damage(f"a tensor has a name of {len(name)} characters, {show(name)}")
            yield name, value
        elif isinstance(value, (dict, list, tuple, Node)) and id(value) not in around:
            if depth > MAX_DEPTH:
                raise Damage(f"the checkpoint is nested more than {MAX_DEPTH} deep", "no reader could use it")
            children = _children(value)
            self._spend(VISIT + len(children))
            around.add(id(value))
            for key, child in children:
                yield from self._leaves(child, f"{name}.{key}" if name else str(key), depth + 1, around)
            # Objects refer to each other in circles: they are visited once, the rest just not within itself.
            maker = value.maker if isinstance(value, Node) else None
            script = isinstance(maker, Global) and maker.module.startswith("__torch__")
            if not isinstance(value, Node) or script or _is_state(value):
                around.discard(id(value))

    def _spend(self, n: int) -> None:
        self.left -= n
        if self.left < 0:
            raise Damage("the checkpoint refers to the same containers too often", "this is how a pickle bomb looks")


def _is_leaf(value: Any) -> bool:
    return isinstance(value, (Tensor, Array))


def _text(key: Any) -> str:
    return key if isinstance(key, str) else as_python(key.value if isinstance(key, Opaque) else key)


def _children(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return [(_text(key), child) for key, child in value.items()]
    if isinstance(value, Node):
        if _is_state(value):
            return _module_children(value)
        return [*_children(value.attributes), *_children(value.entries or {}), *_children(value.items)]
    return list(enumerate(value))


def _is_state(node: Node) -> bool:
    """Whether the object is a torch module by what it consists of."""
    return not {"_parameters", "_buffers", "_modules"}.isdisjoint(node.attributes)


def _module_children(node: Node) -> list[tuple[Any, Any]]:
    """Parameters, buffers and modules, in the order of `state_dict`, without what it leaves out."""
    attributes = node.attributes
    listed = attributes.get("_non_persistent_buffers_set")
    transient = {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()
    children = []
    for group in ("_parameters", "_buffers", "_modules"):
        content = attributes.get(group)
        content = content.entries if isinstance(content, Node) else content
        pairs = _children(content) if isinstance(content, dict) else []
        children += [pair for pair in pairs if group != "_buffers" or pair[0] not in transient]
    return children


def _weight_groups(walk: _Walk, root: Dictionary) -> dict[Any, Any]:
    """Keys of `root` under which weights of a network lie, each with the innermost object that holds them."""
    direct = [key for key, value in root.items() if _is_leaf(value)]
    if any("." in _text(key) for key in direct):
        return {}  # dotted names of tensors: a state dict itself, whatever else it has
    parts = [key for key, value in root.items() if not _is_leaf(value) and not _is_training(key)]
    named = {key for key in parts if key in WEIGHT_KEYS and walk.holds_tensors(root[key])}
    if not named and direct:
        return {}
    groups = [key for key in parts if key in named or _is_weights(root[key])]
    return {key: _innermost(walk, root[key]) for key in groups}


def _is_weights(value: Any) -> bool:
    """Whether `value` looks like a state dict or a module, wherever it lies."""
    if isinstance(value, Node):
        return _is_state(value)
    if not isinstance(value, dict) or not any("." in _text(key) for key in value):
        return False
    return 2 * sum(map(_is_leaf, value.values())) > len(value)


def _innermost(walk: _Walk, value: Any) -> Any:
    """`value`, or what it keeps under a key for weights, such as the "module" of an average."""
    for _ in range(MAX_DEPTH):
        if not isinstance(value, dict) or any(map(_is_leaf, value.values())):
            break
        inner = [child for key, child in value.items() if key in WEIGHT_KEYS and walk.holds_tensors(child)]
        if len(inner) != 1:
            break
        value = inner[0]
    return value


def _is_training(key: Any) -> bool:
    return isinstance(key, str) and _TRAINING.search(key.lower()[:100]) is not None


def _common_prefix(names: list[str]) -> str:
    """The wrappers' prefix that every name has, such as "module." of DataParallel, "" if one lacks it."""
    cut = ""
    while names:
        longer = next((cut + more for more in PREFIXES if all(name.startswith(cut + more) for name in names)), "")
        if not longer:
            break
        cut = longer
    return cut
