"""Data inside of a page, so that no record can end its script or become markup: JSON without `<`, and base64."""

from __future__ import annotations

import base64
import gzip
from typing import Any

from layerscope.views import wire

__all__ = ["base64_of", "json_element", "packed", "png_url", "text_element"]


def base64_of(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode()


def packed(data: bytes) -> str:
    """Bytes as base64 of gzip; equal bytes give equal text."""
    return base64_of(gzip.compress(data, 6, mtime=0))


def png_url(data: bytes) -> str:
    """The address of a PNG picture that is inside of it."""
    return f"data:image/png;base64,{base64_of(data)}"


def json_element(name: str, data: Any) -> str:
    """An element that holds JSON; `name` is its id."""
    text = wire.dumps(data).decode().replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="{name}">{text}</script>'


def text_element(name: str, text: str) -> str:
    """An element that holds base64; `name` is its id."""
    return f'<script type="text/plain" id="{name}">{text}</script>'
