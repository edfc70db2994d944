"""A record as one HTML file: the viewer's page with everything inside, for a browser without network or server.

    <script type="application/json" id="layerscope-index">     the index of views/wire.py, pictures as data: URLs
    <script type="text/plain" id="block-ID-IMAGE">             a block, gzip, base64; decoded when it is looked at
    <script type="text/plain" id="profile-ID">                 of a survey: views/profile_block.py, gzip, base64
    <script type="text/plain" id="shown-NUMBER">               an image of the data set, WebP, base64

Nothing that a record says can end its script or become markup: JSON keeps no `<`, and base64 has none.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerscope.files import save
from layerscope.profiles import wanted
from layerscope.record import Record
from layerscope.views import wire
from layerscope.views.bundle import inline, sources
from layerscope.views.embedded import base64_of, json_element, packed, png_url, text_element
from layerscope.views.packing import Fit, fitted
from layerscope.views.profile_block import profile_block

__all__ = ["BUDGET_BYTES", "budget_note", "document", "write"]

#: what still goes by mail
BUDGET_BYTES = 10_000_000
#: of what the page and the index leave of it, so much may be images of a data set
_SHOWN_SHARE = 0.4


def document(record: Record, budget_bytes: int = BUDGET_BYTES) -> tuple[str, Fit]:
    """The HTML text, and what was reduced or left out so that it fits into the budget.

    Statistics are always inside. The page itself, the index and the pictures are counted too.
    """
    pictures = [png_url(wire.png(record, at)) for at in range(len(record.pictures))]
    spent = len(
        _page(record, _index(record, pictures, Fit(list(record.values())), 0), Fit([])).encode("utf-8", "replace")
    )
    extras = _profiles(record)
    extras |= _shown(record, (budget_bytes - spent - sum(map(len, extras.values()))) * _SHOWN_SHARE)
    fit = fitted(record, budget_bytes - spent - sum(len(key) + len(text) + 50 for key, text in extras.items()))
    return _page(record, _index(record, pictures, fit, budget_bytes, extras), fit, extras), fit


def _profiles(record: Record) -> dict[str, str]:
    """What a survey knows of each layer, by the id of its element."""
    return {
        f"profile-{number}": packed(profile_block(entry.profile))
        for number, entry in enumerate(record.values())
        if entry.profile
    }


def _shown(record: Record, room: float) -> dict[str, str]:
    """Images of the data set as far as there is room: first those that are some channel's best."""
    found: dict[str, str] = {}
    lists = [entry.profile.examples for entry in record.values() if entry.profile and entry.profile.examples]
    there = {one.number: one for one in record.shown if one.data.size}
    for number in wanted(lists):
        if number in there:
            text = base64_of(wire.webp(there[number]))
            room -= len(text)
            if room < 0:
                break
            found[f"shown-{number}"] = text
    return found


def _index(
    record: Record, pictures: list[str], fit: Fit, budget_bytes: int, extras: Collection[str] = ()
) -> dict[str, Any]:
    """The index with what is there in a file alone."""
    shown = replace(record, entries={entry.key: entry for entry in fit.entries})
    index = wire.index(shown, left_out=fit.left_out)
    for row, url in zip(index["pictures"], pictures, strict=True):
        row["src"] = url
    for image_ in index.get("images", []):
        image_["pixels"] = f"shown-{image_['number']}" in extras
    for (number, image), at in fit.shared.items():
        index["layers"][number]["maps"][image]["at"] = at
    if fit.reduced:
        index["notes"].append(f"reduced to stay within {budget_bytes / 1e6:g} MB: {_factors(fit.reduced)}")
    return index


def _page(record: Record, index: dict[str, Any], fit: Fit, extras: Mapping[str, str] | None = None) -> str:
    data = [json_element("layerscope-index", index)]
    data += [text_element(f"block-{id}-{at}", text) for (id, at), text in fit.texts.items()]
    data += [text_element(key, text) for key, text in (extras or {}).items()]
    title = html.escape(" vs ".join(filter(None, (record.subject, record.subject_b))) or "layerscope")
    return inline(sources(), "\n".join(data), title)


def budget_note(fit: Fit, budget_bytes: int) -> str:
    """One line for the user about layers with smaller maps, or without; "" if there are none."""
    within = f" to stay within {budget_bytes / 1e6:g} MB"
    said = []
    if fit.left_out:
        said.append(f"maps are left out{within}: {_some(fit.left_out)}; their statistics are inside")
    if fit.reduced:
        shown = [_factor(*one) for one in fit.reduced.items()]
        said.append(f"maps are reduced{'' if said else within}: {_some(shown)}")
    return "; ".join([*said, "give a larger budget or fewer layers"]) if said else ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _factor(key: str, factor: int) -> str:
    return f"{key} (1/{factor})"


def _factors(reduced: dict[str, int]) -> str:
    return ", ".join(_factor(*one) for one in reduced.items())


def write(
    record: Record,
    path: str | os.PathLike[str],
    budget_bytes: int = BUDGET_BYTES,
    warn: Callable[[str], None] | None = None,
) -> Path:
    """Write the HTML file, whole or not at all; `warn` is told what did not fit. Raises OutputError, RecordError."""
    text, fit = document(record, budget_bytes)
    note = budget_note(fit, budget_bytes)
    if note and warn:
        warn(note)
    return save(text.encode("utf-8", "replace"), Path(path))
