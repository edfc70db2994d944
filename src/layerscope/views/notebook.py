"""A record in a notebook: the HTML file in a frame of its own, and one line where only text is shown.

The frame holds its document in an attribute, so that a notebook saved as HTML still shows it. It is sandboxed: a
record from somewhere else can run the viewer's code on its data and reach nothing of the notebook.
"""

from __future__ import annotations

import os
from pathlib import Path

from layerscope.files import save
from layerscope.records.record import Record
from layerscope.text import counted, printable
from layerscope.views.html import BUDGET_BYTES, document
from layerscope.views.summary import entry_word, subjects

__all__ = ["frame", "line", "write"]

_STYLE = "width:100%;height:720px;border:1px solid #8884;border-radius:6px"


def frame(record: Record, budget_bytes: int = BUDGET_BYTES) -> str:
    """An iframe that holds the whole page."""
    page, _ = document(record, budget_bytes)
    # Single quotes around it: JSON is full of double ones, and each would become six characters.
    inside = page.replace("&", "&amp;").replace("'", "&#39;")
    return f"<iframe sandbox='allow-scripts allow-downloads' style='{_STYLE}' srcdoc='{inside}'></iframe>"


def write(record: Record, path: str | os.PathLike[str], budget_bytes: int = BUDGET_BYTES) -> Path:
    """Write the frame as a file, to be put into another page. Raises OutputError, RecordError."""
    return save(frame(record, budget_bytes).encode("utf-8", "replace"), Path(path))


def line(record: Record) -> str:
    """`features of AlexNet.pth: 21 layers, 1 image`"""
    # Two checkpoints are compared tensor by tensor, whether their kernels are in the record or not.
    count = len(record.pairs) if record.of_tensors and record.pairs else len(record.entries)
    images = f", {counted(len(record.pictures), 'image')}" if record.pictures else ""
    return printable(f"{record.kind} of {subjects(record)}: {counted(count, entry_word(record))}{images}")
