"""What a training leaves in its run directory: `layerscope train` watched by `layerscope.watch`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from layerscope.networks.open import Network
from layerscope.records.record import Picture
from layerscope.training.data import Examples
from layerscope.training.loop import Epoch
from layerscope.watching.outputs import Probe
from layerscope.watching.watcher import watch

__all__ = ["Logs"]

#: steps between two that are looked at; the last one of an epoch is, too
_EVERY = 100
#: held-out images besides the probe: a channel that is zero on one picture need not be dead
_OTHERS = 15


class Logs:
    """The graph at once; the training loss every few steps; the network every 100 steps and at the end of an epoch.

    The feature maps are of the probe. What the watch notices is said as it happens.
    """

    def __init__(
        self,
        logdir: Path,
        network: Network,
        examples: Examples,
        batch: int,
        picture: Image.Image,
        name: str,
        say: Callable[[str], None],
    ) -> None:
        steps = math.ceil(len(examples.train) / batch)  # an epoch
        self.watch = watch(
            network.model,
            logdir,
            lambda step: step == 1 or step % _EVERY == 0 or step % steps == 0,
            _probe(network, examples, picture, name),
            say=say,
        )
        self.watch.__enter__()

    def loss(self, step: int, loss: float) -> None:
        """The mean training loss of the last steps."""
        self.watch.log({"train/loss": loss})

    def epoch(self, epoch: Epoch) -> None:
        """Scores after an epoch."""
        self.watch.log(
            {
                "epoch": epoch.number,
                "train/accuracy": epoch.train.accuracy,
                "val/loss": epoch.val.loss,
                "val/accuracy": epoch.val.accuracy,
                "learning_rate": epoch.lr,
            }
        )

    def diverged(self) -> None:
        """The loss is no number: say where that began."""
        self.watch.diverged()

    def close(self) -> None:
        """Leave the network alone."""
        self.watch.close()


def _probe(network: Network, examples: Examples, picture: Image.Image, name: str) -> Probe:
    """The picture alone, whose maps are kept, and then other held-out images, where they have its size."""
    first = network.preprocessing(picture)  # (C, H, W)
    others = [network.preprocessing(examples.picture(int(index))) for index in examples.held_out[1 : _OTHERS + 1]]
    others = [one for one in others if one.shape == first.shape]
    shown = Picture(name, np.asarray(network.preprocessing.picture(picture).convert("RGB")))
    return Probe([first[None], *([torch.stack(others)] if others else [])], [shown])
