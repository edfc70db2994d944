"""What every view for people says of a record, in the same words: a row an entry, with its figures as text."""

from __future__ import annotations

from collections.abc import Sequence

from layerscope.records.kinds import KINDS
from layerscope.records.record import Entry, Pair, Record
from layerscope.stats import Columns
from layerscope.stats.table import Statistic, shown
from layerscope.text import number, shape

__all__ = ["channels_of", "dead_share", "entry_word", "pair_row", "rows", "statistics_of", "subjects", "written"]

Row = dict[str, str]


def written(statistic: Statistic, columns: Columns | None) -> str:
    """One figure of a whole layer or tensor; "" where there is no distribution."""
    if columns is None:
        return ""
    value = statistic.of(columns).item()
    return f"{value:,}" if statistic.type == "count" else number(value)


def statistics_of(entries: Sequence[Entry], brief: bool = False) -> list[Statistic]:
    """Those that say something of these entries: the brief ones, and others that are not 0 of all of them."""
    totals = [entry.total for entry in entries if entry.total is not None]
    return [each for each in shown(brief) if each.brief or any(each.of(total).item() for total in totals)]


def entry_word(record: Record) -> str:
    """What an entry of this record is called: "layer" or "tensor"."""
    return KINDS[record.kind].entry or ("tensor" if record.of_tensors else "layer")


def subjects(record: Record) -> str:
    """The names of what the record is about, for a title."""
    return " vs ".join(filter(None, (record.subject, record.subject_b)))


def channels_of(entry: Entry) -> int:
    """Channels with statistics of their own."""
    return entry.columns.count.size if entry.columns is not None else 0


def rows(record: Record, statistics: Sequence[Statistic]) -> list[Row]:
    """The table of a record: a row an entry, or a pair of a comparison; cells by the name of their column."""
    if KINDS[record.kind].compares:
        return [pair_row(pair) for pair in record.pairs]
    row = _tensor if entry_word(record) == "tensor" else _layer
    return [
        row(entry, {statistic.label: written(statistic, entry.total) for statistic in statistics})
        for entry in record.values()
    ]


def _tensor(entry: Entry, figures: Row) -> Row:
    if entry.type == "counter":
        figures[next(iter(figures))] = entry.note.partition(" ")[0]
    return {"name": entry.key, "shape": shape(entry.shape), "dtype": entry.dtype, **figures}


def _layer(entry: Entry, figures: Row) -> Row:
    """Of a survey also silent: channels that are zero everywhere on nine of ten images and more, the dead left out."""
    row = {"layer": entry.key, "type": entry.type, "shape": shape(entry.shape[1:]), **figures}
    row["dead"] = dead_share(entry)
    if profile := entry.profile:
        images, ranked = profile.images, profile.rank is not None
        copies = {channel for pair in profile.redundant_channels for channel in pair[:2]}
        row["silent"] = str(int(((profile.inactive >= 0.9 * images) & (profile.inactive < images)).sum()))
        row["copies"] = str(len(copies)) if ranked else ""
        row["rank"] = f"{profile.rank:.1f}" if ranked else ""
    return row


def dead_share(entry: Entry) -> str:
    """5/32: dead channels of all."""
    return f"{len(entry.dead)}/{channels_of(entry)}"


def pair_row(pair: Pair) -> Row:
    """One tensor or layer of A against B."""
    sizes = [shape(sizes) for sizes in (pair.shape_a, pair.shape_b) if sizes is not None]
    figures = {"max |A-B|": pair.max_abs, "mean |A-B|": pair.mean_abs, "cosine": pair.cosine}
    head = {"name": pair.name, "status": pair.status, "shape": " / ".join(dict.fromkeys(sizes))}
    return head | {name: "" if value is None else number(value) for name, value in figures.items()}
