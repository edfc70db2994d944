"""One place where anything wrong with a file becomes a CheckpointError that names it and the next step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from layerscope.errors import CheckpointError, LayerscopeError

__all__ = ["DAMAGED", "Damage", "guarded", "show"]

DAMAGED = "the file is damaged, get it again from where it came from"


class Damage(Exception):
    """What is wrong with a file and the next step; `guarded` puts the name of the file in front."""

    def __init__(self, what: str, step: str = DAMAGED) -> None:
        super().__init__(f"{what}; {step}" if step else what)


def show(value: object, limit: int = 80) -> str:
    """`value` from inside a file as text safe to print: escaped, on one line, about `limit` characters."""
    if isinstance(value, int) and abs(value) >> 256:
        return f"a number of {value.bit_length()} bits"  # str() of a huge integer raises
    if isinstance(value, (tuple, list)) and all(isinstance(item, (int, str)) for item in value[:9]):
        text = f"({', '.join(show(item, 40) for item in value[:9])}{', ...' if len(value) > 9 else ''})"
    elif value is None or isinstance(value, (str, bytes, int, float, Exception)):
        text = str(value[: limit + 1] if isinstance(value, (str, bytes)) else value)
    else:
        return f"a {type(value).__name__}"  # str() of nested objects may never end
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


@contextmanager
def guarded(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn every exception inside into a CheckpointError of one line about `path`."""
    name = show(os.fspath(path), 1000)
    try:
        yield
    except LayerscopeError:
        raise
    except Damage as damage:
        raise CheckpointError(f"{name}: {damage}") from damage
    except OSError as error:
        reason = show(error.strerror or error)
        raise CheckpointError(f"{name}: cannot be read ({reason}); check the name and your permissions") from error
    except MemoryError as error:
        raise CheckpointError(
            f"{name}: needs more memory than there is; close other programs, or get the file again: it may be damaged"
        ) from error
    except Exception as error:
        # Bytes decide what arithmetic the readers do; whatever that raises, the file is the cause.
        reason = show(f"{type(error).__name__}: {error}", 120)
        raise CheckpointError(f"{name}: cannot be understood ({reason}); {DAMAGED}") from error
