"""What every view for people says of an entry, in the same words: its figures, its channels, which are dead."""

from __future__ import annotations

from collections.abc import Iterable

from layerscope.kinds import KINDS
from layerscope.record import Entry, Record
from layerscope.stats import Columns
from layerscope.stats.table import Statistic, shown
from layerscope.text import number

__all__ = ["channels_of", "dead_share", "entry_word", "statistics_of", "subjects", "written"]


def written(statistic: Statistic, columns: Columns | None) -> str:
    """One figure of a whole layer or tensor as text; "" where there is no distribution."""
    if columns is None:
        return ""
    value = statistic.of(columns).item()
    return f"{value:,}" if statistic.type == "count" else number(value)


def statistics_of(entries: Iterable[Entry], brief: bool = False) -> list[Statistic]:
    """Those that say something of these entries: the brief ones, and counts that are not 0 of all of them."""
    totals = [entry.total for entry in entries if entry.total is not None]
    return [one for one in shown(brief) if one.brief or any(one.of(total).item() for total in totals)]


def entry_word(record: Record) -> str:
    """What an entry of this record is called: "layer" or "tensor"."""
    return KINDS[record.kind].entry or ("tensor" if record.of_tensors else "layer")


def subjects(record: Record) -> str:
    """The names of what the record is about, for a title."""
    return " vs ".join(filter(None, (record.subject, record.subject_b)))


def channels_of(entry: Entry) -> int:
    """Channels with statistics of their own."""
    return entry.columns.count.size if entry.columns is not None else 0


def dead_share(entry: Entry) -> str:
    """5/32: dead channels of all."""
    return f"{len(entry.dead)}/{channels_of(entry)}"
