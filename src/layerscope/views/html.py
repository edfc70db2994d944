"""A record as one HTML file: the viewer's page with everything inside, for a browser without network or server.

    <script type="application/json" id="layerscope-index">     the index of views/wire.py, pictures as data: URLs
    <script type="text/plain" id="block-ID-IMAGE">             a block, gzip, base64; decoded when it is looked at

Nothing that a record says can end its script or become markup: JSON keeps no `<`, and base64 has none.
"""

from __future__ import annotations

import base64
import gzip
import html
import os
from collections.abc import Callable
from pathlib import Path

from layerscope.files import save
from layerscope.record import Record
from layerscope.views import wire
from layerscope.views.bundle import inline, web_files

__all__ = ["BUDGET_BYTES", "document", "left_out_note", "write"]

#: what still goes by mail
BUDGET_BYTES = 10_000_000

Blocks = dict[tuple[int, int], str]


def document(record: Record, budget_bytes: int = BUDGET_BYTES) -> tuple[str, list[str]]:
    """The HTML text, and the keys of the layers whose maps did not fit into the budget, largest first.

    These layers keep their statistics. The page itself, the index and the pictures are counted too.
    """
    web = web_files()
    pictures = [f"data:image/png;base64,{_base64(wire.png(record, at))}" for at in range(len(record.pictures))]
    spent = sum(map(len, web.values())) + sum(map(len, pictures)) + len(wire.dumps(wire.index(record)))
    blocks, left_out = _fit(record, budget_bytes - spent)
    index = wire.index(record, left_out=left_out)
    for row, url in zip(index["pictures"], pictures, strict=True):
        row["src"] = url
    data = [f'<script type="application/json" id="layerscope-index">{_json(index)}</script>']
    data += [f'<script type="text/plain" id="block-{id}-{at}">{text}</script>' for (id, at), text in blocks.items()]
    title = html.escape(" vs ".join(filter(None, (record.subject, record.subject_b))) or "layerscope")
    return inline(web, "\n".join(data), title), left_out


def _fit(record: Record, room: int) -> tuple[Blocks, list[str]]:
    """Every block, those of the largest layers without maps where the room is too small."""
    entries = list(record)
    packed = [[_text(wire.block(entry, at)) for at in range(max(1, len(entry.maps)))] for entry in entries]
    sizes = [sum(map(len, texts)) for texts in packed]
    total, left_out = sum(sizes), []
    for number in sorted(range(len(entries)), key=lambda one: -sizes[one]):
        if total <= room:
            break
        if entries[number].maps:
            packed[number] = [_text(wire.block(entries[number], 0, maps=False))]
            total -= sizes[number] - len(packed[number][0])
            left_out.append(entries[number].key)
    return {(number, at): text for number, texts in enumerate(packed) for at, text in enumerate(texts)}, left_out


def _text(block: bytes) -> str:
    return _base64(gzip.compress(block, 6, mtime=0))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _json(index: object) -> str:
    return wire.dumps(index).decode().replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def left_out_note(left_out: list[str], budget_bytes: int) -> str:
    """One line for the user about layers without maps; "" if there are none."""
    if not left_out:
        return ""
    named = ", ".join(left_out[:3]) + (f" and {len(left_out) - 3} more" if len(left_out) > 3 else "")
    return (
        f"maps are left out to stay within {budget_bytes / 1e6:g} MB: {named}; their statistics are inside; "
        "give a larger budget or fewer layers"
    )


def write(
    record: Record,
    path: str | os.PathLike[str],
    budget_bytes: int = BUDGET_BYTES,
    warn: Callable[[str], None] | None = None,
) -> Path:
    """Write the HTML file, whole or not at all; `warn` is told what did not fit. Raises OutputError, RecordError."""
    text, left_out = document(record, budget_bytes)
    note = left_out_note(left_out, budget_bytes)
    if note and warn:
        warn(note)
    return save(text.encode("utf-8", "replace"), Path(path))
