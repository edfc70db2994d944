"""Records whose every name is an attack: on HTML, JavaScript, a terminal, a spreadsheet, a file system."""

from __future__ import annotations

import dataclasses
from itertools import count

from layerscope.records.record import Finding, Layer, Record
from layerscope.records.sites import Site
from tests.attacks import crafting
from tests.survey import making

__all__ = ["ATTACK", "attacked", "layers", "records"]

ATTACK = (
    "=1+1;\"'`</script x></script/x><!--<script></script></style></title></textarea>"
    "<img src=x onerror=window.pwned=1><svg onload=pwned=1>"
    "<script>pwned=1</script>{{pwned}}${pwned}javascript:pwned=1&lt;&quot;&#39;\x1b[2J\x1b]0;pwned\x07\x9b1m\r\n"
    "\u202e\u2066\u200b\u2028\x00[bold red]../../../etc/passwd"
)


def attacked(record: Record) -> Record:
    """The same record with an attack in every text that can come from a file or a person."""
    number = count()

    def text(_old: str = "") -> str:
        return f"{ATTACK}{next(number)}"

    def named(site: Site) -> Site:
        return Site(f"{ATTACK}.{site.path}", site.call, site.layout)

    made = dataclasses.replace(record, entries={})
    for entry in record.values():
        made.add(dataclasses.replace(entry, site=named(entry.site), type=text(), dtype=text(), note=text()))
    made.subject, made.subject_b = text(), text() if record.subject_b else ""
    made.pictures = [dataclasses.replace(one, name=text()) for one in record.pictures]
    made.predictions = [[dataclasses.replace(one, label=text()) for one in top] for top in record.predictions]
    made.findings = [Finding(f"{ATTACK}.{one.name}", text(), one.channels, text()) for one in record.findings]
    made.pairs = [dataclasses.replace(one, name=f"{ATTACK}.{one.name}") for one in record.pairs]
    made.stages = [(f"{ATTACK}.{a}", f"{ATTACK}.{b}") for a, b in record.stages]
    made.foreign, made.never, made.notes = [text()], [text()], [text()]
    numbers = {key: record.provenance[key] for key in ("images", "of") if key in record.provenance}
    told = {ATTACK: text(), "format": text(), "architecture": text(), "preprocessing": {text(): text()}}
    made.provenance = told | numbers
    made.classes = [text() for _ in record.classes]
    made.shown = [dataclasses.replace(one, name=text(), label=text()) for one in record.shown]
    if record.similarity:
        made.similarity = dataclasses.replace(record.similarity, keys=[f"{ATTACK}.{k}" for k in record.similarity.keys])
    return made


def records() -> dict[str, Record]:
    """One of each kind."""
    plain = {"features": crafting._features(), "weights": crafting._weights(), "compare": crafting._compare(),
             "survey": making.record()}  # fmt: skip
    return {kind: attacked(record) for kind, record in plain.items()}


def layers() -> list[Layer]:
    """The structure of a network with such names."""
    return [Layer(ATTACK, ATTACK, True, 3, 3, 1, (1, 2)), Layer(f"{ATTACK}.x", ATTACK, True, 0, 0)]
