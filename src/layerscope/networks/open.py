"""What the user wrote for NETWORK -> a network that is ready to run, with its preprocessing and labels."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.activations.hooks import unwrapped
from layerscope.checkpoints import Checkpoint, open_checkpoint
from layerscope.dtypes import is_float
from layerscope.errors import LayerscopeError, NetworkError, UsageError
from layerscope.images.preprocessing import IMAGENET, Preprocessing
from layerscope.networks.build import build, head_of, labels_for, preprocessing_for, split_name, unbuilt
from layerscope.networks.devices import Device, device_named, placed
from layerscope.networks.foreign import Takes, open_program, plain, preprocessing_of, takes_of
from layerscope.networks.identify import Identity, identify, shapes_of, signatures, without_counters
from layerscope.text import first_of, nearest

__all__ = ["Network", "network_of", "open_network", "opened", "state_of", "table_in", "transfer"]


@dataclass
class Network:
    """A network with all that is needed to run it on an image.

    `notes` say what was assumed, one line each: random weights, where the labels come from. `takes` is what the
    network takes: a batch (B, C, H, W), a list of images (C, H, W), clips (B, C, T, H, W) or series (B, C, L). `spec`
    is what `open_network` was given to make it; "" for a live module.
    """

    model: nn.Module
    name: str
    preprocessing: Preprocessing = IMAGENET
    labels: list[str] | None = None
    checkpoint: str = ""
    notes: list[str] = field(default_factory=list)
    takes: Takes = field(default="batch", init=False)
    spec: str = ""

    def __post_init__(self) -> None:
        self.takes = takes_of(self.model)

    @property
    def subject(self) -> str:
        """What the user would recognise: name and file."""
        return f"{self.name}={self.checkpoint}" if self.checkpoint else self.name


def state_of(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights of an open checkpoint as tensors of their own, in the order of the file."""
    state = {}
    for spec in checkpoint.specs:
        if spec.role == "weight" and not spec.unreadable:
            bits = torch.from_numpy(checkpoint.read(spec).copy())  # a copy: the mapping is read-only and goes away
            state[spec.name] = bits.view(getattr(torch, spec.dtype)) if is_float(spec.dtype) else bits
    return state


def _mismatch(name: str, file: str, have: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> NetworkError:
    missing = [key for key in without_counters(want) if key not in have]
    extra = [key for key in have if key not in want]
    shapes = [key for key in want if key in have and want[key].shape != have[key].shape]
    said = []
    if missing:
        said.append(f"{len(missing)} of {len(want)} keys are missing ({first_of(missing)}{nearest(missing[0], extra)})")
    if extra:
        said.append(f"{len(extra)} of {len(have)} are not the network's ({first_of(extra)})")
    if shapes:
        key = shapes[0]
        said.append(
            f"{len(shapes)} have another shape ({key}: {tuple(have[key].shape)} in the file, "
            f"{tuple(want[key].shape)} in the network)"
        )
    found = identify(shapes_of(have))
    advice = f"it looks like {found}" if found else "give the network that it was saved from"
    return NetworkError(f"{file} does not fit {name}: {'; '.join(said)}; {advice}")


def _load(name: str, file: str, state: dict[str, Tensor], classes: int | None) -> nn.Module:
    """Build `name` with these weights, without initialising what is overwritten at once."""
    model = unbuilt(name, classes)
    want = model.state_dict()
    have, need = shapes_of(state).items(), shapes_of(want)
    if not without_counters(need).items() <= have <= need.items():
        raise _mismatch(name, file, state, want)
    for key in want.keys() - state.keys():  # num_batches_tracked, which files of before 2018 do not have
        state[key] = torch.zeros((), dtype=torch.int64)
    # The network decides on the types: a checkpoint saved in half precision runs in single.
    state = {key: tensor.to(want[key].dtype) for key, tensor in state.items()}
    model.load_state_dict(state, assign=True)
    if any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()]):  # buffers outside of the state dict
        model = build(name, classes)
        model.load_state_dict(state)
    return model


def _classes(name: str, state: Mapping[str, Tensor]) -> int | None:
    """The number of classes that a checkpoint's last layer was saved with."""
    head = head_of(unbuilt(name))
    if not head:
        return None
    weight = state.get(f"{head[0]}.weight")
    return int(weight.shape[0]) if weight is not None else None


def _sidecar(file: Path) -> dict[str, Any]:
    """What is known of a checkpoint from the files beside it.

    `classes.json` is written by `layerscope train`, `class_indices.json` ({"0": "daisy", ...}) by the tutorial.
    """
    known = table_in(file.parent / "classes.json").get(file.name)
    if isinstance(known, dict):
        return known
    table = table_in(file.parent / "class_indices.json")
    try:
        return {"classes": [str(table[str(index)]) for index in range(len(table))]} if table else {}
    except KeyError:
        return {}


def table_in(file: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if it cannot be read."""
    try:
        table = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def _from_checkpoint(file: str, name: str = "") -> Network:
    with open_checkpoint(file) as checkpoint:
        state = state_of(checkpoint)
    if not state:
        raise NetworkError(f"{file}: holds no weights; give a checkpoint of a network")
    sidecar, notes = _sidecar(Path(file)), []
    if not name:
        found = _recognised(file, state)
        state = {key.removeprefix(found.prefix): tensor for key, tensor in state.items()}
        notes.append(f"recognised as {found}")
        # Only a name of a library: a file that lies beside a checkpoint must not make us run code.
        said = sidecar.get("network")
        name = said if isinstance(said, str) and split_name(said) else found.name
    if split_name(name):
        classes = _classes(name, state)
        model, usual = _load(name, file, state, classes), preprocessing_for(name)
    else:
        made = _from_code(name)
        _fill(made.model, name, file, state)
        model, usual, classes = made.model, made.preprocessing, None
    labels = sidecar.get("classes")
    if not isinstance(labels, list) or classes not in (None, len(labels)):
        labels = labels_for(name, classes)
        if labels:
            notes.append(f"labels are ImageNet's: the network has {classes:,} classes and the checkpoint names none")
    try:
        preprocessing = Preprocessing.from_json(sidecar["preprocessing"])
    except (KeyError, TypeError, ValueError):
        preprocessing = usual
    return Network(model, name, preprocessing, labels, file, notes)


def _recognised(file: str, state: Mapping[str, Tensor]) -> Identity:
    found = identify(shapes_of(state))
    if found and found.strict:
        return found
    looks = f" (nearest: {found})" if found else ""
    raise NetworkError(
        f"{file}: its {len(state)} tensors are those of no network that layerscope knows{looks}; "
        f"name the network: torchvision:NAME={file}, or path/to/file.py:function={file}"
    )


def _fill(model: nn.Module, name: str, file: str, state: dict[str, Tensor]) -> None:
    """Load weights into a network that the user's code has built."""
    want = model.state_dict()
    if shapes_of(state) != shapes_of(want):
        raise _mismatch(name, file, state, want)
    model.load_state_dict(state)


def _import(where: str) -> Any:
    """The module of `path/to/file.py` or `package.module`. This runs the user's code, which the user asked for."""
    if not where.endswith(".py"):
        here = str(Path.cwd())
        # As `python -m` does: a module beside the user's shell comes before anything installed.
        sys.path.insert(0, here)
        try:
            return importlib.import_module(where)
        finally:
            sys.path.remove(here)
    path = Path(where)
    if not path.is_file():
        raise NetworkError(f"{where}: no such file; check the path")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))  # the file may import its neighbours
    spec.loader.exec_module(module)
    return module


def _from_code(given: str) -> Network:
    where, colon, what = given.rpartition(":")
    if not colon:
        names = [key for key in signatures() if key.endswith(f":{given}")]
        known = " or ".join(names) or "torchvision:NAME or file.py:function"
        raise UsageError(f"{given!r} is the name of no network; write {known}")
    try:
        made = getattr(_import(where), what)
        model = made if isinstance(made, nn.Module) else made()
    except LayerscopeError:
        raise
    except AttributeError as error:
        raise NetworkError(f"{given}: {error}; name a function, class or module that is there") from error
    except Exception as error:  # the user's code may raise anything
        raise NetworkError(f"{given}: raised {type(error).__name__}: {error}; mend the code and try again") from error
    if not isinstance(model, nn.Module):
        raise NetworkError(f"{given}: gave {type(model).__name__}, not a torch.nn.Module; return the network")
    return network_of(model, given)


def network_of(model: nn.Module, name: str = "") -> Network:
    """A live module as a Network: ImageNet's preprocessing, gray if its first convolution takes one channel.

    What `torch.compile` and `DataParallel` wrap is looked at without the wrapper, TorchScript through a `mirror`.
    """
    name = name or type(unwrapped(model)).__name__
    model, notes = plain(model)
    preprocessing = preprocessing_of(model)
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels == 1:
        preprocessing = replace(IMAGENET, mean=(0.5,), std=(0.5,))
    return Network(model, name, preprocessing, notes=notes)


def open_network(given: str | nn.Module, device: Device = None) -> Network:
    """A network from what the user wrote; see the table of NETWORK in the README.

    `device`: where a network that is made here goes; a live module stays where it is (`opened` runs it elsewhere).
    Raises NetworkError, CheckpointError, DeviceError or UsageError, each with the next step.
    """
    where = device_named(device)
    if isinstance(given, nn.Module):
        return network_of(given)
    network = _opened(given)
    network.spec = given
    if where is not None:
        network.model.to(where)
    return network


@contextmanager
def opened(given: Network | nn.Module | str, device: Device = None) -> Iterator[Network]:
    """The network that a caller has or names, on `device` while the block runs; afterwards it is as it was."""
    network = given if isinstance(given, Network) else open_network(given)
    with placed(network.model, device_named(device)):
        yield network


def _opened(given: str) -> Network:
    there = os.path.exists(given)  # noqa: PTH110 - false, too, for a name that no file system takes
    name, equals, file = given.partition("=")
    if equals and not there:  # epoch=9-step=100.ckpt is a name that Lightning gives
        return _from_checkpoint(file, name)
    if split_name(given):
        model = build(given)
        note = "random weights: this network was never trained; give NAME=CHECKPOINT for a trained one"
        return Network(model, given, preprocessing_for(given), None, "", [note])
    if ":" in given and not there:
        return _from_code(given)
    program = open_program(given)
    if program is not None:
        model, size = program
        network = network_of(model, given)
        if size:
            network.preprocessing = replace(network.preprocessing, resize=size, crop=None)
        return network
    if there or Path(given).suffix or os.sep in given:
        return _from_checkpoint(given)
    short = [key.partition(":")[2] for key in signatures()]
    raise UsageError(
        f"{given!r} is neither a file nor a network{nearest(given, short)}; write torchvision:NAME, layerscope:NAME, "
        "timm:NAME, file.py:function or a checkpoint"
    )


def transfer(model: nn.Module, file: str) -> tuple[int, list[str]]:
    """Copy the weights of a checkpoint that fit, for fine-tuning; the number copied, and the names left as they were.

    Raises NetworkError if fewer than half of the network's tensors are in the file: that is another network.
    """
    with open_checkpoint(file) as checkpoint:
        state = state_of(checkpoint)
    want = model.state_dict()
    fits = {key: tensor for key, tensor in state.items() if key in want and want[key].shape == tensor.shape}
    counted = without_counters(want)
    left = [key for key in counted if key not in fits]
    if len(left) * 2 > len(counted):
        raise _mismatch(type(model).__name__, file, state, want)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.load_state_dict(fits, strict=False)
    return len(counted) - len(left), left
