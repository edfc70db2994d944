"""What can go wrong, and how it is said.

    LayerscopeError             one line: what, which value, the next step
    ├── UsageError              the command or call asks for something that does not exist (exit code 2)
    ├── CheckpointError         a checkpoint that cannot be read
    ├── ImageError              an image that cannot be read
    ├── RecordError             a record that cannot be read or merged
    ├── NetworkError            a network that cannot be built, or whose keys do not match
    │   └── ForwardError        a network that raises while it runs
    ├── DeviceError             a device that is not there or does not compute
    ├── Diverged                a training whose loss is no number any more (of layerscope.training)
    ├── EngineError             processes of a survey that died, hang or lost images (of layerscope.surveying)
    ├── NoMatch                 a pattern that selects nothing
    └── OutputError             a file or folder that cannot be written

Every message is complete in itself: the command line prints it and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "CheckpointError",
    "DeviceError",
    "ForwardError",
    "ImageError",
    "LayerscopeError",
    "NetworkError",
    "NoMatch",
    "OutputError",
    "RecordError",
    "UsageError",
    "writing",
]


class LayerscopeError(Exception):
    """Base of everything that layerscope raises on purpose."""


class UsageError(LayerscopeError):
    """The command or call asks for something that does not exist."""


class CheckpointError(LayerscopeError):
    """A checkpoint that cannot be read."""


class ImageError(LayerscopeError):
    """An image that cannot be read."""


class RecordError(LayerscopeError):
    """A record that cannot be read or merged."""


class NetworkError(LayerscopeError):
    """A network that cannot be built, or whose keys do not match its checkpoint."""


class ForwardError(NetworkError):
    """A network that raises while it runs."""


class DeviceError(LayerscopeError):
    """A device that is not there or does not compute."""


class NoMatch(LayerscopeError):
    """A pattern that selects nothing."""


class OutputError(LayerscopeError):
    """A file or folder that cannot be written."""


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError inside into an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{os.fspath(path)}: cannot be written ({reason}); give a folder you may write to, with room left"
        ) from error
