"""What a training leaves in its run directory: `layerscope train` watched by `layerscope.watch`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from layerscope.networks.open import Network
from layerscope.records import record
from layerscope.training.data import Examples
from layerscope.training.loop import Epoch
from layerscope.watching.outputs import Probe
from layerscope.watching.watcher import Watch, watch

__all__ = ["scores", "watched"]

#: steps between two that are looked at; the last one of an epoch is, too
_EVERY = 100
#: held-out images besides the probe: a channel that is zero on one picture need not be dead
_OTHERS = 15

#: as it is stored, and its name
Picture = tuple[Image.Image, str]


def watched(
    logdir: Path, network: Network, examples: Examples, batch: int, probe: Picture | None, say: Callable[[str], None]
) -> Watch:
    """A watch that looks every 100 steps and at the end of an epoch; what it notices is said as it happens.

    The feature maps are of the probe: a picture and its name, the first held-out one if None.
    """
    steps = math.ceil(len(examples.train) / batch)  # an epoch
    first = int(examples.held_out[0])
    return watch(
        network.model,
        logdir,
        lambda step: step == 1 or step % _EVERY == 0 or step % steps == 0,
        _probe(network, examples, *(probe or (examples.picture(first), examples.name(first)))),
        say=say,
    )


def scores(epoch: Epoch) -> dict[str, float]:
    """The figures that are kept of an epoch."""
    return {
        "epoch": epoch.number,
        "train/accuracy": epoch.train.accuracy,
        "val/loss": epoch.val.loss,
        "val/accuracy": epoch.val.accuracy,
        "learning_rate": epoch.lr,
    }


def _probe(network: Network, examples: Examples, picture: Image.Image, name: str) -> Probe:
    """The picture alone, whose maps are kept, and then other held-out images, where they have its size."""
    first = network.preprocessing(picture)  # (C, H, W)
    others = [network.preprocessing(examples.picture(int(index))) for index in examples.held_out[1 : _OTHERS + 1]]
    others = [one for one in others if one.shape == first.shape]
    shown = record.Picture(name, np.asarray(network.preprocessing.picture(picture).convert("RGB")))
    return Probe([first[None], *([torch.stack(others)] if others else [])], [shown])
