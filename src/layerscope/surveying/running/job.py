"""What is measured on which images, how the images are cut into chunks, and the way of it all to another process."""

from __future__ import annotations

import math
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from layerscope._version import __version__
from layerscope.errors import NetworkError, UsageError
from layerscope.images.preprocessing import Preprocessing
from layerscope.networks.feeding import BATCH_SIZE
from layerscope.networks.open import Network, open_network
from layerscope.stats import adopt, machine_code
from layerscope.surveying.accumulators.network import NetworkAccumulator
from layerscope.surveying.accumulators.update import Updater
from layerscope.surveying.digests import digest, processor, weights_of
from layerscope.surveying.sources import Source

__all__ = ["CHUNK", "Broken", "Job", "pack", "unpack"]

#: images a chunk: a multiple of the minibatches of 64 that CKA is summed over, few enough for little to be lost with a
#: chunk, and so many that what is kept of them (150 MB for MobileNetV2) costs little beside the passes
CHUNK = 128


class Broken(NamedTuple):
    """An image that could not be read."""

    number: int
    name: str
    reason: str


@dataclass
class Job:
    """A survey: which layers of which network are measured on which images, and how.

    `measures`: plain data for the updater. `against`: a second network that sees the same images. `device`: where both
    networks run. `tools`: what runs
    the network, made of network, layers and measures, and whose `take` hands out the second of them.
    """

    network: Network
    source: Source
    layers: Sequence[str]
    measures: Any = None
    batch: int = BATCH_SIZE
    chunk: int = CHUNK
    against: Network | None = None
    tools: tuple[Any, Any] = (Updater, NetworkAccumulator)
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"batch_size: {self.batch} is not a number of images; give 1 or more")
        if self.chunk < 1 or self.chunk % 64:
            raise UsageError(f"chunk: {self.chunk} is not a multiple of 64; give 64, 128, ...")

    @property
    def chunks(self) -> int:
        """How many there are."""
        return math.ceil(len(self.source) / self.chunk)

    def numbers(self, chunk: int) -> range:
        """Numbers of a chunk's images."""
        return range(chunk * self.chunk, min((chunk + 1) * self.chunk, len(self.source)))

    def batches(self, chunk: int) -> list[NDArray[np.int64]]:
        """A chunk's images in batches of about the same size: by the numbers alone, so that a broken image changes no
        other batch."""
        numbers = np.array(self.numbers(chunk), np.int64)
        return np.array_split(numbers, math.ceil(len(numbers) / self.batch))

    @property
    def networks(self) -> list[Network]:
        """Those that see the images."""
        return [self.network] if self.against is None else [self.network, self.against]

    def updater(self) -> Any:
        """What runs the network, with nothing measured yet."""
        return self.tools[0](self.network, self.layers, self.measures, *self.networks[1:])

    def identity(self) -> dict[str, str]:
        """All that the bits of the result depend on, by name."""
        model, other = self.network.model, self.against
        return {
            "data set": self.source.fingerprint(),
            "network": f"{self.network.subject or type(model).__name__} ({self.network.takes})",
            "weights": weights_of(model.state_dict()),
            "preprocessing": str(self.network.preprocessing.to_json()),
            "second network": f"{other.subject} {weights_of(other.model.state_dict())[:16]}" if other else "none",
            "layers": ", ".join(self.layers),
            "options": digest([self.measures, self.batch, self.chunk]),
            "layerscope": __version__,
            "torch": torch.__version__,
            "processor": processor(),
            "device": self.device,
        }


@dataclass
class _Recipe:
    """A network to build again. `state`: the weights, None if a checkpoint has them; `digest` of them."""

    spec: str
    preprocessing: Preprocessing
    state: dict[str, Any] | None
    digest: str


def pack(job: Job, dumps: Callable[[Any], bytes] = pickle.dumps) -> bytes:
    """The job for `unpack`: a network with a spec by its spec, a live module as Python pickles it.

    Raises NetworkError for a module or data set that cannot be pickled.
    """
    network: Any = _recipe(job.network)
    against: Any = job.against and _recipe(job.against)
    code = machine_code()
    try:
        # Modules and files are found there as they are here.
        return pickle.dumps((str(Path.cwd()), sys.path, code, dumps(replace(job, network=network, against=against))))
    except Exception as error:  # pickling runs code of the user's classes
        raise NetworkError(
            f"{job.network.name}: network or images cannot be sent to other processes ({error}); "
            "use --engine local with one process, or name the network as file.py:function"
        ) from error


def _recipe(network: Network) -> Network | _Recipe:
    if not network.spec:
        return network
    state = network.model.state_dict()
    weights = None if network.checkpoint else {key: value.cpu() for key, value in state.items()}
    return _Recipe(network.spec, network.preprocessing, weights, weights_of(state))


def unpack(data: bytes) -> Job:
    """The job that `pack` was given, its network ready to run. Raises NetworkError where that cannot be."""
    folder, path, code, packed = pickle.loads(data)
    adopt(code)  # where no folder keeps it, each process would compile for itself
    sys.path.extend(entry for entry in path if entry not in sys.path)
    if Path(folder).is_dir():
        os.chdir(folder)  # a spec may hold a relative path
    job: Job = pickle.loads(packed)
    job.network = _built(job.network, job.device)
    job.against = job.against and _built(job.against, job.device)
    return job


def _built(recipe: Any, device: str) -> Network:
    if not isinstance(recipe, _Recipe):
        return recipe
    network = open_network(recipe.spec)
    network.preprocessing = recipe.preprocessing
    if recipe.state is not None and weights_of(network.model.state_dict()) != recipe.digest:
        network.model.load_state_dict(recipe.state)  # random weights, or code that draws its own
    if weights_of(network.model.state_dict()) != recipe.digest:
        raise NetworkError(f"{recipe.spec}: other weights in this process; leave the checkpoint alone meanwhile")
    network.model.to(device)
    return network
