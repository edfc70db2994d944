"""Everything that can be done with a record from somewhere: loaded, asked, drawn, written."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from layerscope.errors import LayerscopeError
from layerscope.records.file import load
from layerscope.records.record import Record
from layerscope.text import json_text
from layerscope.views import documents, html, notebook, pictures, tensorboard, terminal
from layerscope.views import format as viewer_format
from layerscope.views.format import profile_block

__all__ = ["light_page", "look", "views"]


def _terminal(record: Record) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        terminal.show(record)
    assert "\x1b" not in out.getvalue()


def _viewer(record: Record) -> None:
    json_text(viewer_format.index(record))
    for entry in record.values():
        for image in range(max(1, min(len(entry.maps), 4))):
            viewer_format.block(entry, image)
            viewer_format.predicted(viewer_format.block(entry, image))
        viewer_format.block(entry, 0, maps=False)


def _asked(record: Record) -> None:
    assert isinstance(repr(record), str)
    record.only("*")
    for entry in record.values():
        assert len(entry.dead) <= (entry.columns.count.size if entry.columns else 0)
        assert record[entry.key] is entry


def _pictures(record: Record) -> None:
    for channels in (12, None):
        for draw in pictures.drawings(record, channels, "viridis", "network", True).values():
            draw()


def views(folder: Path) -> dict[str, Callable[[Record], Any]]:
    """Every view by its name."""
    return {
        "asked": _asked,
        "viewer": _viewer,
        "pictures of the input": lambda record: [
            viewer_format.picture_of(record, at) for at in range(len(record.pictures))
        ],
        "pictures of the data": lambda record: [viewer_format.thumbnail(one) for one in record.shown],
        "profile": lambda record: [profile_block(one.profile) for one in record.values() if one.profile],
        "json": lambda record: documents.dumps(documents.document(record)).encode(),
        "csv": lambda record: [text.encode() for text in documents.tables(record).values()],
        "terminal": _terminal,
        "pictures": _pictures,
        "tensorboard": lambda record: list(tensorboard.values(record)),
        "html": html.document,
        "small html": lambda record: html.document(record, 2000),
        "notebook": notebook.frame,
        "saved": lambda record: record.save(folder / "again.layerscope"),
    }


@contextlib.contextmanager
def light_page() -> Iterator[None]:
    """The HTML file without the page's code, which is the same in every one and takes half a second to lay together."""
    kept = html.inline
    html.inline = lambda _sources, data, title: f"<title>{title}</title>{data}"  # type: ignore[assignment]
    try:
        yield
    finally:
        html.inline = kept


def look(path: Path, folder: Path, only: Collection[str] = ()) -> set[str]:
    """Load and look in every way, or in some; the views that refused. Whatever else is raised is a fault."""
    with np.errstate(all="ignore"):  # figures of a crafted record may be beyond any sense
        return _look(path, folder, only)


def _look(path: Path, folder: Path, only: Collection[str]) -> set[str]:
    try:
        record = load(path)
    except LayerscopeError as error:
        assert str(error).isprintable(), ascii(str(error))[:300]
        return {"load"}
    refused = set()
    for name, view in views(folder).items():
        if only and name not in only:
            continue
        try:
            view(record)
        except LayerscopeError as error:
            assert str(error).isprintable(), ascii(str(error))[:300]
            refused.add(name)
    return refused
