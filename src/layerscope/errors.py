"""What can go wrong, and how it is said.

    LayerscopeError             one line: what, which value, the next step
    ├── UsageError              the command or call asks for something that does not exist (exit code 2)
    ├── CheckpointError         a checkpoint that cannot be read
    ├── DeviceError             a device that is not in this machine, or not supported
    ├── ImageError              an image that cannot be read
    ├── RecordError             a record that cannot be read or merged
    │   └── NoEntry             a layer or tensor that a record does not have; a KeyError too
    ├── NetworkError            a network that cannot be built, or whose keys do not match
    │   └── ForwardError        a network that raises while it runs
    ├── Diverged                a training whose loss is not finite (NaN or inf)
    ├── EngineError             processes of a survey that died, hang or lost images
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
    "Diverged",
    "EngineError",
    "ForwardError",
    "ImageError",
    "LayerscopeError",
    "NetworkError",
    "NoEntry",
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


class DeviceError(LayerscopeError):
    """A device that is not in this machine, or not supported."""


class ImageError(LayerscopeError):
    """An image that cannot be read."""


class RecordError(LayerscopeError):
    """A record that cannot be read or merged."""


class NoEntry(RecordError, KeyError):
    """A layer or tensor that a record does not have."""

    __str__ = Exception.__str__  # a KeyError shows its text in quotes


class NetworkError(LayerscopeError):
    """A network that cannot be built, or whose keys do not match its checkpoint."""


class ForwardError(NetworkError):
    """A network that raises while it runs."""


class Diverged(LayerscopeError):
    """A training whose loss is not finite (NaN or inf)."""


class EngineError(LayerscopeError):
    """Processes of a survey that have died, hang or have lost images."""


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
