"""A record, or a training over its steps, as one HTML file: the viewer's page with everything inside, without a server.

    <script type="application/json" id="layerscope-index">     the index of views/format.py, pictures as data: URLs
    <script type="text/plain" id="block-ID-IMAGE">             a block, gzip, base64; decoded when it is looked at
    <script type="text/plain" id="profile-ID">                 of a survey: its profile block, gzip, base64
    <script type="text/plain" id="shown-NUMBER">               an image of the data set, WebP, base64
    <script type="application/json" id="layerscope-run">       of a training: what is known of all of it
    <script type="text/plain" id="index-STEP">                 of a training: the index of another step, gzip, base64

The first index of a training is that of its last step, the pictures in it are everyone's, and IDs are STEP/ID. Nothing
that a record says can end its script or become markup: JSON keeps no `<`, and base64 has none.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from layerscope.errors import RecordError
from layerscope.files import save
from layerscope.records.profiles import wanted
from layerscope.records.record import Record
from layerscope.text import json_text, some
from layerscope.views import format as viewer
from layerscope.views.bundle import inline, sources
from layerscope.views.packing import AROUND_BYTES, Fit, base64_of, fitted, zipped
from layerscope.views.summary import subjects

__all__ = ["BUDGET_BYTES", "budget_note", "document", "evenly", "write", "write_run"]

#: what still goes by mail
BUDGET_BYTES = 10_000_000
#: of what the page and the index leave of it, so much may be images of a data set
_THUMBNAILS = 0.4
#: rather smaller maps than fewer steps of a training than this; and never more steps
_FEW, _MOST = 12, 100
_ANY = 1 << 40

Texts = dict[str, str]
Item = TypeVar("Item")


def write(
    record: Record,
    path: str | os.PathLike[str],
    budget_bytes: int = BUDGET_BYTES,
    warn: Callable[[str], None] | None = None,
) -> Path:
    """Write the HTML file, whole or not at all; `warn` hears what did not fit. Raises OutputError, RecordError."""
    text, fit = document(record, budget_bytes)
    note = budget_note(fit, budget_bytes)
    if note and warn:
        warn(note)
    return save(text.encode("utf-8", "replace"), Path(path))


def document(record: Record, budget_bytes: int = BUDGET_BYTES) -> tuple[str, Fit]:
    """The HTML text, and what was reduced or left out so that it fits into the budget.

    Statistics are always inside. The page itself, the index and the pictures are counted too.
    """
    urls = _picture_urls(record)
    index = _with_urls(_index(record, Fit(list(record.values()))), urls)
    room = budget_bytes - len(_page(subjects(record), {"layerscope-index": index}, {}).encode("utf-8", "replace"))
    extras = {
        f"profile-{number}": zipped(viewer.profile_block(entry.profile))
        for number, entry in enumerate(record.values())
        if entry.profile
    }
    extras |= _thumbnails(record, (room - sum(map(len, extras.values()))) * _THUMBNAILS)
    fit = fitted(record, room - _size(extras))
    index = _with_urls(_index(record, fit, extras), urls)
    return _page(subjects(record), {"layerscope-index": index}, _blocks(fit) | extras), fit


def _thumbnails(record: Record, room: float) -> Texts:
    """Images of the data set as far as there is room: first those that are some channel's best."""
    texts: Texts = {}
    lists = [entry.profile.examples for entry in record.values() if entry.profile and entry.profile.examples]
    images = {image.number: image for image in record.shown if image.data.size}
    for number in wanted(lists):
        if number in images:
            text = base64_of(viewer.thumbnail(images[number]))
            room -= len(text)
            if room < 0:
                break
            texts[f"shown-{number}"] = text
    return texts


def _picture_urls(record: Record) -> list[str]:
    pictures = [viewer.picture_of(record, number) for number in range(len(record.pictures))]
    return [f"data:image/png;base64,{base64_of(picture)}" for picture in pictures]


def _index(record: Record, fit: Fit, extras: Collection[str] = (), step: int | None = None) -> dict[str, Any]:
    """The index with what is there in a file alone; of a training with the step in front of every ID."""

    def address(number: int) -> int | str:
        return number if step is None else f"{step}/{number}"

    index = viewer.index(replace(record, entries={entry.key: entry for entry in fit.entries}), left_out=fit.left_out)
    for number, layer in enumerate(index["layers"]):
        layer["id"] = address(number)
    for image in index.get("images", []):
        image["pixels"] = f"shown-{image['number']}" in extras
    for (number, at), (other, there) in fit.shared.items():
        index["layers"][number]["maps"][at]["at"] = [address(other), there]
    if fit.reduced:
        index["notes"].append(f"reduced to keep the file small: {', '.join(_factors(fit))}")
    return index if step is None else index | {"step": step}


def _with_urls(index: dict[str, Any], urls: Sequence[str]) -> dict[str, Any]:
    for row, url in zip(index["pictures"], urls, strict=False):
        row["src"] = url
    return index


def _blocks(fit: Fit, step: str = "") -> Texts:
    return {f"block-{step}{id}-{at}": text for (id, at), text in fit.texts.items()}


def _page(title: str, data: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """The page with these elements by their ids: plain data as JSON, and base64."""
    elements = []
    for name, document in data.items():
        text = json_text(document).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
        elements.append(f'<script type="application/json" id="{name}">{text}</script>')
    elements += [f'<script type="text/plain" id="{name}">{text}</script>' for name, text in texts.items()]
    return inline(sources(), "\n".join(elements), html.escape(title or "layerscope"))


def _size(texts: Mapping[str, str]) -> int:
    return sum(len(key) + len(text) + AROUND_BYTES for key, text in texts.items())


def _factors(fit: Fit) -> list[str]:
    return [f"{key} (1/{factor})" for key, factor in fit.reduced.items()]


def budget_note(fit: Fit, budget_bytes: int) -> str:
    """One line for the user about layers with smaller maps, or without; "" if there are none."""
    within = f" to stay within {budget_bytes / 1e6:g} MB"
    notes = []
    if fit.left_out:
        notes.append(f"maps are left out{within}: {some(fit.left_out)}; their statistics are inside")
    if fit.reduced:
        notes.append(f"maps are reduced{'' if notes else within}: {some(_factors(fit))}")
    return "; ".join([*notes, "give a larger budget or fewer layers"]) if notes else ""


def write_run(
    run: Mapping[str, Any],
    record_of: Callable[[int], Record],
    path: str | os.PathLike[str],
    budget_bytes: int,
    warn: Callable[[str], None],
) -> Path:
    """Write a training as HTML file, whole or not at all.

    `run`: what the server says at /api/run; `record_of` returns the record of a step. `warn` hears of steps and maps
    that did not fit, and of records that cannot be read, which are left out. Raises OutputError, and RecordError if no
    record can be read.
    """
    notes: list[str] = []
    bad: list[int] = []

    def opened(step: int) -> Record | None:
        try:
            return record_of(step)
        except RecordError as error:
            if step not in bad:
                bad.append(step)
                notes.append(f"step {step} is skipped: {error}")
            return None

    first = next((record for step in reversed(run["steps"]) if (record := opened(step))), None)
    if first is None:
        raise RecordError(notes[0] if notes else "this run has no record yet; wait for its first step")
    steps, urls = [step for step in run["steps"] if step not in bad], _picture_urls(first)
    whole = _Step(first, steps[-1], _ANY)
    page = _page(first.subject, {"layerscope-index": whole.index | {"pictures": []}, "layerscope-run": run}, {})
    room = budget_bytes - len(page) - sum(map(len, urls))
    picked = evenly(steps, min(_MOST, max(_FEW, room // whole.size), max(2, room // (2 * whole.index_size))))
    made = _steps(picked, opened, room)
    smaller = any(step.fit.reduced or step.fit.left_out for step in made)
    if len(picked) < len(steps):
        notes.append(f"{len(picked)} of {len(steps)} steps are in this file, evenly chosen")
    if smaller:
        notes.append("maps are reduced or left out; the notes of each step say which")
    if len(picked) < len(steps) or smaller:
        notes.append(f"all to stay within {budget_bytes / 1e6:g} MB: give a larger budget")
    if notes:
        warn("; ".join(notes))
    texts = {key: text for step in made for key, text in step.blocks.items()}
    texts |= {f"index-{step.number}": step.packed for step in made[:-1]}
    times = dict(zip(run["steps"], run["times"], strict=True))
    inside = [step.number for step in made]
    about = {**run, "steps": inside, "times": [times[step] for step in inside], "notes": [*run["notes"], *notes]}
    data = {"layerscope-index": _with_urls(made[-1].index, urls), "layerscope-run": about}
    return save(_page(first.subject, data, texts).encode("utf-8", "replace"), Path(path))


class _Step:
    """One step of a training in at most `room` bytes.

    Layers without maps have their statistics in the index, and no block.
    """

    def __init__(self, record: Record, number: int, room: int) -> None:
        self.number = number
        bare = _index(record, Fit(list(record.values())))
        self.fit = fitted(record, room - _size({"": _packed(bare)}), statistics=False)
        self.index = _index(record, self.fit, step=number)
        self.blocks = _blocks(self.fit, f"{number}/")
        self.packed = _packed(self.index)
        self.index_size = _size({"": self.packed})
        self.size = _size(self.blocks) + self.index_size


def _packed(index: dict[str, Any]) -> str:
    return zipped(json_text(index).encode())


def _steps(picked: Sequence[int], opened: Callable[[int], Record | None], room: float) -> list[_Step]:
    """Each step within its share of what the ones before it have left."""
    made: list[_Step] = []
    for at, number in enumerate(picked):
        record = opened(number)
        if record is not None:
            made.append(_Step(record, number, int(room / (len(picked) - at))))
            room -= made[-1].size
    return made


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of them, evenly chosen, the first and the last among them; all if there are no more."""
    if len(items) <= max(count, 2):
        return list(items)
    last = len(items) - 1
    return [items[round(at * last / (max(count, 2) - 1))] for at in range(max(count, 2))]
