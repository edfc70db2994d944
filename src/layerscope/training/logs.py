"""What training writes to TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from layerscope.inspect import features
from layerscope.networks.open import Network
from layerscope.record import Entry, Histogram, Picture
from layerscope.sites import Site
from layerscope.stats import distribution
from layerscope.tensors import layout_of, role_of
from layerscope.training.loop import Epoch
from layerscope.views.tensorboard import open_writer, write_graph, write_histograms, write_maps

__all__ = ["Logs", "entries_of"]


class Logs:
    """The graph at once; the training loss every few steps; the rest once an epoch.

    Steps of `train/loss` are steps of the optimizer, all other steps are epochs. Histograms are of every
    tensor of the state dict, maps are of every convolution on the probe image. `warning` says why there is no
    graph, "" if there is.
    """

    def __init__(self, logdir: Path, network: Network, probe: Image.Image, name: str) -> None:
        self.writer = open_writer(logdir)
        self.network = network
        self.images = network.preprocessing(probe)[None]  # (1, C, H, W)
        self.picture = Picture(name, np.asarray(network.preprocessing.picture(probe).convert("RGB")))
        self.warning = write_graph(self.writer, network.model, self.images)

    def loss(self, step: int, loss: float) -> None:
        """The mean training loss of the last steps."""
        self.writer.add_scalar("train/loss", loss, step)

    def epoch(self, epoch: Epoch) -> None:
        """Scores, histograms and maps after an epoch."""
        scalars = {
            "train/accuracy": epoch.train.accuracy,
            "val/loss": epoch.val.loss,
            "val/accuracy": epoch.val.accuracy,
            "learning_rate": epoch.lr,
        }
        for tag, value in scalars.items():
            self.writer.add_scalar(tag, value, epoch.number)
        write_histograms(self.writer, entries_of(self.network.model), epoch.number)
        model = self.network.model
        layers = [path for path, module in model.named_modules() if path and isinstance(module, nn.Conv2d)]
        if layers:
            record = features(self.network, self.images, layers)
            record.pictures = [self.picture]
            write_maps(self.writer, record, epoch.number)
        self.writer.flush()  # TensorBoard is watching now, not when the training is over

    def close(self) -> None:
        """Write what is left, and end the writer's thread."""
        self.writer.close()


def entries_of(model: nn.Module, bins: int = 50) -> Iterator[Entry]:
    """Statistics and histogram of every tensor of a live network, without the pictures of the kernels."""
    for name, tensor in model.state_dict().items():
        shape, dtype = tuple(tensor.shape), str(tensor.dtype)[6:]
        role = role_of(name, shape)
        if role == "counter":
            continue
        found = distribution(_bits(tensor), dtype, bins)
        entry = Entry(Site(name, 0, layout_of(name, shape)), role, shape, dtype, whole=found.whole)
        if found.counts is not None and found.edges is not None:
            entry.histogram = Histogram(np.asarray(found.edges, np.float64), found.counts)
        yield entry


def _bits(tensor: Tensor) -> NDArray[np.generic]:
    """The elements as `dtypes.STORAGE` has them: numpy knows no bfloat16 and no float8."""
    tensor = tensor.detach().cpu().contiguous()
    if str(tensor.dtype)[6:].startswith(("bfloat", "float8")):
        tensor = tensor.view(torch.uint16 if tensor.element_size() == 2 else torch.uint8)
    return tensor.numpy()
