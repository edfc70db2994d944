"""Records on the terminal: tables that fit 80 columns and use more where there are more."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from layerscope.record import Entry, Finding, Histogram, Layer, Record, by_change
from layerscope.text import counted, number, printable, shape

__all__ = ["bar", "console", "show", "show_structure", "warn"]

_BLOCKS = " ▁▂▃▄▅▆▇█"


def console() -> Console:
    """Standard output. A file or pipe gets wide lines, since nothing there can be scrolled to the right."""
    seen = sys.stdout is not None and sys.stdout.isatty()  # None where it was closed
    return Console(width=None if seen else 160, highlight=False)


def warn(text: str) -> None:
    """One line on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(printable(text), style="yellow"))


@contextmanager
def bar(what: str, count: bool = False, unit: str = "") -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on standard error, gone when it ends; silent where standard error is no terminal.

    `unit`: of what is counted; with it the rate is shown. What was done before the first call, in another run, is not
    part of the rate nor of the time left.
    """
    stderr = Console(stderr=True)
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn()]
    columns += [
        MofNCompleteColumn() if count else TaskProgressColumn(),
        *([_Rate(unit)] if unit else []),
        TimeRemainingColumn(),
        TextColumn("{task.fields[at]}"),
    ]
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task(what, total=None, at="")

        def update(done: int, of: int, at: str) -> None:
            if progress.tasks[0].total is None:
                progress.reset(task, completed=done)
            progress.update(task, completed=done, total=of, at=_name(at[-40:]))

        yield update


class _Rate(ProgressColumn):
    """How many a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{number(speed)} {self._unit}/s" if speed else "")


def _spark(histogram: Histogram | None, width: int = 14) -> str:
    """The shape of a histogram in one line; square roots, so that tails can be seen beside the peak."""
    if not histogram or not histogram.counts.any():
        return ""
    parts = np.array([part.sum() for part in np.array_split(histogram.counts, min(width, len(histogram.counts)))])
    heights = np.sqrt(parts / parts.max())
    return "".join(_BLOCKS[int(np.ceil(height * 8))] for height in heights)


def _name(text: str) -> str:
    """A name from a file, as rich takes it literally."""
    return escape(printable(text))


def _table(*columns: str) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for name in columns:
        text = name in ("name", "layer", "type", "distribution", "A", "B", "status")
        # Where there is no room the widest cells, the paths, go on in the next line. What may not wrap is cut without a
        # word: the tail of a path tells layers apart, and a number without its last digit lies.
        grid.add_column(name, justify="left" if text else "right", overflow="fold")
    return grid


def _figures(entry: Entry) -> list[str]:
    one = entry.total
    if one is None:
        return [""] * 4
    return [number(float(getattr(one, name).item())) for name in ("mean", "std", "min", "max")]


def _weights(out: Console, record: Record) -> None:
    wide = out.width >= 110
    columns = ["name", "shape", *(["dtype"] if wide else []), "mean", "std", "min", "max"]
    grid = _table(*columns, *(["zeros", "distribution"] if wide else []))
    unread: list[str] = []
    for entry in record.values():
        row = [_name(entry.key), shape(entry.shape), *([_name(entry.dtype)] if wide else []), *_figures(entry)]
        if entry.type == "counter":
            row[-4] = _name(entry.note.partition(" ")[0])
        if entry.total is None and entry.note.startswith("no statistics"):
            unread.append(printable(f"{entry.key}: {entry.note}"))
        if wide:
            row += [f"{int(entry.total.zeros.item()):,}" if entry.total else "", _spark(entry.histogram)]
        grid.add_row(*row)
    out.print(grid)
    elements = sum(int(np.prod(entry.shape)) for entry in record.values() if entry.total)
    kept_as = _name(record.provenance.get("format") or "")
    out.print(f"\n{counted(len(record), 'tensor')}, {counted(elements, 'value')} ({kept_as})")
    for line in unread[:5] + ([f"and {len(unread) - 5} more"] if len(unread) > 5 else []):
        out.print(Text(line, style="yellow"))
    if record.provenance.get("architecture"):
        out.print(f"looks like {_name(record.provenance['architecture'])}")
    if record.foreign:
        out.print(f"globals in the pickle that are not torch's: {_name(', '.join(record.foreign))}")
    for kind in dict.fromkeys(finding.kind for finding in record.findings):
        _kind(out, kind, [finding for finding in record.findings if finding.kind == kind])


def _kind(out: Console, kind: str, findings: list[Finding], most: int = 4) -> None:
    """Findings of one kind; of an untrained network all batch norms would say the same."""
    shown = findings if len(findings) <= most + 1 else findings[:most]
    for one in shown:
        channels = f" channels {_list(one.channels)}" if one.channels else ""
        out.print(Text(printable(f"{kind}: {one.name}{channels}: {one.detail}"), style="yellow"))
    if len(shown) < len(findings):
        out.print(Text(f"{printable(kind)}: and {len(findings) - len(shown)} more; --json lists all", style="yellow"))


def _list(channels: Sequence[object], most: int = 8) -> str:
    shown = ", ".join(map(str, channels[:most]))
    return shown + (f" and {len(channels) - most} more" if len(channels) > most else "")


def _classes(out: Console, record: Record) -> None:
    """The five best classes of each image; of many images the best one alone."""
    few = len(record.predictions) <= 3
    for index, top in enumerate(record.predictions):
        name = record.pictures[index].name if index < len(record.pictures) else f"image {index}"
        if few:
            out.print(f"[bold]{_name(name)}[/bold]")
        for one in top if few else top[:1]:
            blocks = "█" * round(one.probability * 24) if one.probability >= 0 else ""  # NaN is not
            lead = "" if few else f"{_name(name):<28}"
            out.print(f"  {lead}{one.probability:6.1%}  {_name(one.label):<28} {blocks if few else ''}".rstrip())
    if record.predictions:
        out.print()


def _features(out: Console, record: Record) -> None:
    _classes(out, record)
    grid = _table("layer", "type", "shape", "mean", "std", "min", "max", "dead")
    for entry in record.values():
        channels = len(entry.columns.count) if entry.columns is not None else 0
        dead = f"{len(entry.dead)}/{channels}"
        style = "yellow" if entry.dead else ""
        grid.add_row(
            _name(entry.key), _name(entry.type), shape(entry.shape[1:]), *_figures(entry), Text(dead, style=style)
        )
    out.print(grid)
    out.print(f"\n{_outputs(record)}; dead: zero everywhere on these images")
    if record.never:
        out.print(f"never ran: {_name(', '.join(record.never))}")


def _outputs(record: Record) -> str:
    channels = sum(len(entry.columns.count) for entry in record.values() if entry.columns is not None)
    return f"{counted(len(record), 'layer output')}, {counted(channels, 'channel')}"


def _survey(out: Console, record: Record) -> None:
    """One row a layer; silent: channels that are zero everywhere on nine of ten images and more, the dead left out."""
    images = int(record.provenance.get("images", 0))
    grid = _table("layer", "type", "shape", "mean", "std", "max", "dead", "silent", "copies", "rank")
    for entry in record.values():
        profile = entry.profile
        channels = len(entry.columns.count) if entry.columns is not None else 0
        silent = copied = rank = ""
        if profile is not None:
            silent = str(int(((profile.inactive >= 0.9 * images) & (profile.inactive < images)).sum()))
            copied = (
                str(len({one for pair in profile.redundant_channels for one in pair[:2]}))
                if profile.rank is not None
                else ""
            )
            rank = f"{profile.rank:.1f}" if profile.rank is not None else ""
        mean, std, _, high = _figures(entry)
        dead = Text(f"{len(entry.dead)}/{channels}", style="yellow" if entry.dead else "")
        grid.add_row(
            _name(entry.key), _name(entry.type), shape(entry.shape[1:]), mean, std, high, dead, silent, copied, rank
        )
    out.print(grid)
    of = record.provenance.get("of", images)
    said = counted(images, "image") if images == of else f"{images:,} of {of:,} images"
    out.print(f"\n{said}, {_outputs(record)}; dead: zero everywhere on every image")
    if record.classes:
        _favourites(out, record)
    if record.never:
        out.print(f"never ran: {_name(', '.join(record.never))}")


def _favourites(out: Console, record: Record, most: int = 5) -> None:
    """The channels whose mean a class explains best, of all layers but the last, which is the classes."""
    found = [
        (float(profile.eta_squared[index]), entry.key, int(index), int(profile.preferred_class[index]))
        for entry in list(record.values())[:-1]
        if (profile := entry.profile) and profile.eta_squared is not None and profile.preferred_class is not None
        for index in np.argsort(-np.nan_to_num(profile.eta_squared, nan=-1))[:most]
    ]
    for share, key, index, favourite in sorted(found, reverse=True)[:most]:
        if share > 0 and 0 <= favourite < len(record.classes):
            name = _name(record.classes[favourite])
            out.print(f"{_name(key)} channel {index} follows {name}: the classes explain {share:.0%} of it")


def _compare(out: Console, record: Record) -> None:
    out.print(f"A  {_name(record.subject)}\nB  {_name(record.subject_b)}\n")
    if record.predictions:
        for side, top in zip("AB", record.predictions, strict=False):
            if not top:
                continue
            best = ", ".join(f"{_name(one.label)} {one.probability:.1%}" for one in top[:3])
            out.print(f"{side} sees  {best}")
        out.print()
    if record.stages:
        grid = _table("A", "shape", "dead", "B", "shape", "dead")
        for stage in record.stages:
            row: list[str | Text] = []
            for side, key in zip("ab", stage, strict=True):
                entry = record[f"{side}:{key}"]
                channels = len(entry.columns.count) if entry.columns is not None else 0
                share = f"{len(entry.dead)}/{channels}"
                row += [_name(key), shape(entry.shape[1:]), Text(share, style="yellow" if entry.dead else "")]
            grid.add_row(*row)
        out.print("[bold]the same stage of both[/bold]")
        out.print(grid)
        out.print()
    grid = _table("name", "status", "shape", "max |A-B|", "mean |A-B|", "cosine")
    shown = [pair for pair in record.pairs if pair.status not in ("only-a", "only-b")]
    for pair in by_change(shown) + [pair for pair in shown if pair.mean_abs is None]:
        sizes = shape(pair.shape_a or pair.shape_b or ())
        if pair.status == "shape":
            sizes = f"{shape(pair.shape_a or ())} / {shape(pair.shape_b or ())}"
        figures = [pair.max_abs, pair.mean_abs, pair.cosine]
        grid.add_row(_name(pair.name), _name(pair.status), sizes, *("" if f is None else number(f) for f in figures))
    if shown:
        out.print(grid)
    for status, side in (("only-a", "A"), ("only-b", "B")):
        names = [pair.name for pair in record.pairs if pair.status == status]
        if names:
            out.print(f"only in {side}: {_name(_list(names, 6))}")
    counts = {status: sum(pair.status == status for pair in record.pairs) for status in _STATUSES}
    what = "tensors" if record.of_tensors else "layers"
    out.print(f"\n{what}: " + ", ".join(f"{count} {status}" for status, count in counts.items() if count))


_STATUSES = ("same", "changed", "shape", "only-a", "only-b")


def show(record: Record) -> None:
    """Print a record."""
    shows = {"weights": _weights, "features": _features, "compare": _compare, "survey": _survey}
    shows[record.kind](console(), record)


def show_structure(name: str, sizes: Sequence[int], layers: Sequence[Layer]) -> None:
    """Print the structure of a network as a tree."""
    out = console()
    root = Tree(f"[bold]{_name(name)}[/bold]  input {shape(sizes)}", guide_style="dim")
    branches = {"": root}
    for layer in layers:
        parent, _, own = layer.path.rpartition(".")
        while parent and parent not in branches:
            parent = parent.rpartition(".")[0]
            own = layer.path[len(parent) + 1 :] if parent else layer.path
        branches[layer.path] = branches[parent].add(_line(layer, own))
    out.print(root)
    top = [layer for layer in layers if "." not in layer.path]
    total, trainable = (sum(getattr(layer, name) for layer in top) for name in ("parameters", "trainable"))
    ran = sum(layer.leaf and layer.calls > 0 for layer in layers)
    out.print(f"\n{counted(ran, 'layer')} ran, {counted(total, 'parameter')}, {trainable:,} trainable")
    never = [layer.path for layer in layers if layer.leaf and not layer.calls]
    if never:
        out.print(f"never ran: {_name(', '.join(never))}")


def _line(layer: Layer, own: str) -> Text:
    text = Text(printable(own), style="bold")
    text.append(f"  {printable(layer.type)}", style="cyan")
    if layer.shape is not None:
        text.append(f"  {shape(layer.shape)}")
    if layer.parameters:
        text.append(f"  {counted(layer.parameters, 'parameter')}", style="dim")
    if layer.calls > 1:
        text.append(f"  ran {layer.calls} times", style="yellow")
    elif not layer.calls:
        text.append("  never ran", style="yellow")
    return text
