"""A training over its steps as one HTML file: the page of views/html.py with several records inside, and a slider.

<script type="application/json" id="layerscope-index">     the index of the last step; its pictures are everyone's
<script type="application/json" id="layerscope-run">       what is known of the whole run
<script type="text/plain" id="index-STEP">                 the index of another step, gzip, base64
<script type="text/plain" id="block-STEP/ID-IMAGE">        a block of a layer with maps, gzip, base64
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerscope.errors import RecordError
from layerscope.files import save
from layerscope.record import Record
from layerscope.views import wire
from layerscope.views.bundle import inline, sources
from layerscope.views.embedded import json_element, packed, png_url, text_element
from layerscope.views.packing import fitted

__all__ = ["chosen", "document", "write"]

#: rather smaller maps than fewer steps than this; and never more steps
_FEW, _MOST = 12, 100
#: the markup around a part
_AROUND_BYTES = 64
_ANY = 1 << 40

#: the index, parts by the ids of their elements, and whether maps are smaller or missing
Step = tuple[dict[str, Any], dict[str, str], bool]


def chosen(steps: Sequence[int], count: int) -> list[int]:
    """`count` steps, evenly, the first and the last among them; all if there are no more."""
    if len(steps) <= max(count, 2):
        return list(steps)
    last = len(steps) - 1
    return [steps[round(at * last / (max(count, 2) - 1))] for at in range(max(count, 2))]


def document(
    run: Mapping[str, Any], record_of: Callable[[int], Record], budget_bytes: int, warn: Callable[[str], None]
) -> str:
    """The HTML text. `run`: what the server says at /api/run; `record_of` gives the record of a step.

    `warn` is told of steps and maps that did not fit, and of records that cannot be read, which are left out. Raises
    RecordError if no record can be read.
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
    steps = [step for step in run["steps"] if step not in bad]
    index, parts, _ = _step(first, steps[-1], _ANY)
    pictures = [png_url(wire.png(first, at)) for at in range(len(first.pictures))]
    room = budget_bytes - len(_page(run, index | {"pictures": []}, {}, first.subject)) - sum(map(len, pictures))
    whole, least = _size(parts) + _size({"": _packed(index)}), _size({"": _packed(index)})
    picked = chosen(steps, min(_MOST, max(_FEW, room // whole), max(2, room // (2 * least))))
    made = _made(picked, opened, room)
    smaller = any(less for _, _, less in made.values())
    if len(picked) < len(steps):
        notes.append(f"{len(picked)} of {len(steps)} steps are in this file, evenly chosen")
    if smaller:
        notes.append("maps are reduced or left out; the notes of each step say which")
    if len(picked) < len(steps) or smaller:
        notes.append(f"all to stay within {budget_bytes / 1e6:g} MB: give a larger budget")
    if notes:
        warn("; ".join(notes))
    *others, last = made
    parts = {key: text for _, texts, _ in made.values() for key, text in texts.items()}
    parts |= {f"index-{step}": _packed(made[step][0]) for step in others}
    index = made[last][0]
    for row, url in zip(index["pictures"], pictures, strict=False):
        row["src"] = url
    return _page(_within(run, list(made), notes), index, parts, first.subject)


def write(
    run: Mapping[str, Any],
    record_of: Callable[[int], Record],
    path: str | os.PathLike[str],
    budget_bytes: int,
    warn: Callable[[str], None],
) -> Path:
    """Write the HTML file, whole or not at all; see `document`. Raises OutputError, RecordError."""
    return save(document(run, record_of, budget_bytes, warn).encode("utf-8", "replace"), Path(path))


def _made(picked: Sequence[int], opened: Callable[[int], Record | None], room: float) -> dict[int, Step]:
    """Each step within its share of what the ones before it have left."""
    made: dict[int, Step] = {}
    for at, step in enumerate(picked):
        record = opened(step)
        if record is None:
            continue
        made[step] = _step(record, step, int(room / (len(picked) - at)))
        room -= _size(made[step][1]) + _size({"": _packed(made[step][0])})
    return made


def _step(record: Record, step: int, room: int) -> Step:
    """One record within so many bytes. Layers without maps have their statistics in the index, and no block."""
    numbers = [number for number, entry in enumerate(record.values()) if entry.maps]
    keys = list(record.entries)
    mapped = replace(record, entries={keys[number]: record.entries[keys[number]] for number in numbers})
    fit = fitted(mapped, room - _size({"": _packed(wire.index(record))}))
    shown = dict(record.entries) | {entry.key: entry for entry in fit.entries}
    index = wire.index(replace(record, entries=shown), left_out=fit.left_out) | {"step": step}
    for layer in index["layers"]:
        layer["id"] = f"{step}/{layer['id']}"
    for (number, image), (other, there) in fit.shared.items():
        index["layers"][numbers[number]]["maps"][image]["at"] = [f"{step}/{numbers[other]}", there]
    if fit.reduced:
        said = ", ".join(f"{key} (1/{factor})" for key, factor in fit.reduced.items())
        index["notes"].append(f"reduced to keep the file small: {said}")
    lost = {at for at, entry in enumerate(fit.entries) if entry.key in fit.left_out}
    texts = {
        f"block-{step}/{numbers[number]}-{image}": text
        for (number, image), text in fit.texts.items()
        if number not in lost
    }
    return index, texts, bool(fit.reduced or fit.left_out)


def _within(run: Mapping[str, Any], steps: list[int], notes: list[str]) -> dict[str, Any]:
    times = dict(zip(run["steps"], run["times"], strict=True))
    return {**run, "steps": steps, "times": [times[step] for step in steps], "notes": [*run["notes"], *notes]}


def _size(parts: Mapping[str, str]) -> int:
    return sum(len(key) + len(text) + _AROUND_BYTES for key, text in parts.items())


def _packed(index: dict[str, Any]) -> str:
    return packed(wire.dumps(index))


def _page(run: Mapping[str, Any], index: dict[str, Any], parts: Mapping[str, str], subject: str) -> str:
    data = [json_element("layerscope-index", index), json_element("layerscope-run", run)]
    data += [text_element(key, text) for key, text in parts.items()]
    return inline(sources(), "\n".join(data), html.escape(subject or "layerscope"))
