"""A record in a notebook: the HTML file in a frame of its own, and one line where only text is shown.

The frame holds its document in an attribute, so that a notebook saved as HTML still shows it. It is sandboxed: a
record from somewhere else can run the viewer's code on its data and reach nothing of the notebook.
"""

from __future__ import annotations

from layerscope.record import Record
from layerscope.text import counted, printable
from layerscope.views.html import BUDGET_BYTES, document

__all__ = ["frame", "line"]

_STYLE = "width:100%;height:720px;border:1px solid #8884;border-radius:6px"


def frame(record: Record, budget_bytes: int = BUDGET_BYTES) -> str:
    """An iframe that holds the whole page."""
    page, _ = document(record, budget_bytes)
    # Single quotes around it: JSON is full of double ones, and each would become six characters.
    inside = page.replace("&", "&amp;").replace("'", "&#39;")
    return f"<iframe sandbox='allow-scripts allow-downloads' style='{_STYLE}' srcdoc='{inside}'></iframe>"


def line(record: Record) -> str:
    """`features of AlexNet.pth: 21 layers, 1 image`"""
    what = "tensor" if record.of_tensors else "layer"
    count = len(record.pairs) if record.kind == "compare" and record.of_tensors else len(record.entries)
    subject = " vs ".join(filter(None, (record.subject, record.subject_b)))
    shown = f", {counted(len(record.pictures), 'image')}" if record.pictures else ""
    return printable(f"{record.kind} of {subject}: {counted(count, what)}{shown}")
