"""A job on its way to another process."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from layerscope.errors import LayerscopeError, NetworkError
from layerscope.networks.open import Network, open_network
from layerscope.networks.preprocessing import Preprocessing
from layerscope.stats import adopt, machine_code
from layerscope.surveying.engines import EngineError
from layerscope.surveying.job import Job, weights_of

__all__ = ["pack", "said", "unpack"]


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
    network: Any = _recipe(job.network, job.spec)
    against: Any = job.against and _recipe(job.against, job.against.spec)
    code = machine_code()
    try:
        # Modules and files are found there as they are here.
        return pickle.dumps((str(Path.cwd()), sys.path, code, dumps(replace(job, network=network, against=against))))
    except Exception as error:  # pickling runs code of the user's classes
        raise NetworkError(
            f"{job.network.name}: network or images cannot be sent to other processes ({error}); "
            "use --engine local with one process, or name the network as file.py:function"
        ) from error


def _recipe(network: Network, spec: str) -> Network | _Recipe:
    if not spec:
        return network
    state = network.model.state_dict()
    given = None if network.checkpoint else {key: value.cpu() for key, value in state.items()}
    return _Recipe(spec, network.preprocessing, given, weights_of(state))


def unpack(data: bytes) -> Job:
    """The job that `pack` was given, its network ready to run. Raises NetworkError where that cannot be."""
    folder, path, code, packed = pickle.loads(data)
    adopt(code)  # where no folder keeps it, each process would compile for itself
    sys.path.extend(one for one in path if one not in sys.path)
    if Path(folder).is_dir():
        os.chdir(folder)  # a spec may hold a relative path
    job: Job = pickle.loads(packed)
    job.network = _made(job.network)
    job.against = job.against and _made(job.against)
    return job


def _made(recipe: Any) -> Network:
    if not isinstance(recipe, _Recipe):
        return recipe
    network = open_network(recipe.spec)
    network.preprocessing = recipe.preprocessing
    if recipe.state is not None and weights_of(network.model.state_dict()) != recipe.digest:
        network.model.load_state_dict(recipe.state)  # random weights, or code that draws its own
    if weights_of(network.model.state_dict()) != recipe.digest:
        raise NetworkError(f"{recipe.spec}: other weights in this process; leave the checkpoint alone meanwhile")
    return network


def said(error: Exception) -> LayerscopeError:
    """An error of another process that can be raised in this one."""
    if isinstance(error, LayerscopeError):
        return error
    text = " ".join(str(error).split())[:300]
    return EngineError(f"measuring failed: {type(error).__name__}: {text}; try --engine local with one process")
