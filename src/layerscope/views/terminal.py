"""Records on the terminal: tables that fit 80 columns and use more where there are more."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
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

from layerscope.files import save
from layerscope.records.record import Finding, Histogram, Layer, Record, by_change
from layerscope.text import counted, number, printable, shape, some
from layerscope.views.summary import channels_of, dead_share, entry_word, pair_row, rows, statistics_of

__all__ = ["bar", "console", "show", "show_structure", "warn"]

_BLOCKS = " ▁▂▃▄▅▆▇█"
#: columns of a file or pipe, where nothing can be scrolled to the right; and from how many on tables tell more
_PIPE, _WIDE = 160, 110


def console() -> Console:
    """Standard output; a file or pipe gets wide lines."""
    interactive = sys.stdout is not None and sys.stdout.isatty()  # None where it was closed
    return Console(width=None if interactive else _PIPE, highlight=False)


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
    done = MofNCompleteColumn() if count else TaskProgressColumn()
    rate = [_Rate(unit)] if unit else []
    left = [TimeRemainingColumn(), TextColumn("{task.fields[at]}")]
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), done, *rate, *left]
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


def _print_rows(out: Console, rows: Sequence[Mapping[str, str]], leave: Sequence[str] = ()) -> None:
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in leave]
    _print_table(out, names, [[row.get(name, "") for name in names] for row in rows])


def _print_table(out: Console, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    grid = _table(*names)
    for row in rows:
        dead = [name == "dead" and not text.startswith("0/") for name, text in zip(names, row, strict=True)]
        grid.add_row(*(Text(printable(text), "yellow" if some else "") for text, some in zip(row, dead, strict=True)))
    out.print(grid)


def _rows(out: Console, record: Record) -> list[dict[str, str]]:
    """With the brief statistics, and where there is room with all that say something of this record."""
    return rows(record, statistics_of(list(record.values()), brief=out.width < _WIDE))


def _weights(out: Console, record: Record) -> None:
    entries = list(record.values())
    sparks = [{"distribution": _spark(entry.histogram)} for entry in entries]
    table = [row | spark for row, spark in zip(_rows(out, record), sparks, strict=True)]
    _print_rows(out, table, () if out.width >= _WIDE else ("dtype", "distribution"))
    elements = sum(int(np.prod(entry.shape)) for entry in entries if entry.total)
    kept_as = _name(record.provenance.get("format") or "")
    out.print(f"\n{counted(len(entries), 'tensor')}, {counted(elements, 'value')} ({kept_as})")
    bare = [entry for entry in entries if entry.total is None and entry.note.startswith("no statistics")]
    unread = [f"{entry.key}: {entry.note}" for entry in bare]
    for line in unread[:5] + ([f"and {len(unread) - 5} more"] if len(unread) > 5 else []):
        out.print(Text(printable(line), style="yellow"))
    if record.provenance.get("architecture"):
        out.print(f"looks like {_name(record.provenance['architecture'])}")
    if record.foreign:
        out.print(f"globals in the pickle that are not torch's: {_name(', '.join(record.foreign))}")
    for kind in dict.fromkeys(finding.kind for finding in record.findings):
        _findings(out, kind, [finding for finding in record.findings if finding.kind == kind])


def _findings(out: Console, kind: str, findings: list[Finding], most: int = 4) -> None:
    """Findings of one kind; of an untrained network all batch norms would say the same."""
    shown = findings if len(findings) <= most + 1 else findings[:most]
    for finding in shown:
        channels = f" channels {some(finding.channels, 8)}" if finding.channels else ""
        out.print(Text(printable(f"{kind}: {finding.name}{channels}: {finding.detail}"), style="yellow"))
    if len(shown) < len(findings):
        out.print(Text(f"{printable(kind)}: and {len(findings) - len(shown)} more; --json lists all", style="yellow"))


def _classes(out: Console, record: Record) -> None:
    """The five best classes of each image; of many images the best one alone."""
    few = len(record.predictions) <= 3
    for index, top in enumerate(record.predictions):
        name = record.pictures[index].name if index < len(record.pictures) else f"image {index}"
        if few:
            out.print(f"[bold]{_name(name)}[/bold]")
        for prediction in top if few else top[:1]:
            label, share = prediction.label, prediction.probability
            blocks = "█" * round(share * 24) if few and share >= 0 else ""  # NaN is not
            lead = "" if few else f"{_name(name):<28}"
            out.print(f"  {lead}{share:6.1%}  {_name(label):<28} {blocks}".rstrip())
    if record.predictions:
        out.print()


def _features(out: Console, record: Record) -> None:
    _classes(out, record)
    _print_rows(out, _rows(out, record))
    out.print(f"\n{_outputs(record)}; dead: zero everywhere on these images")
    _never(out, record.never)


def _never(out: Console, layers: Sequence[str]) -> None:
    if layers:
        out.print(f"never ran: {_name(', '.join(layers))}")


def _outputs(record: Record) -> str:
    channels = sum(channels_of(entry) for entry in record.values())
    return f"{counted(len(record.entries), 'layer output')}, {counted(channels, 'channel')}"


def _survey(out: Console, record: Record) -> None:
    _print_rows(out, _rows(out, record), () if out.width >= _WIDE else ("shape",))
    images = int(record.provenance.get("images", 0))
    of = record.provenance.get("of", images)
    looked = counted(images, "image") if images == of else f"{images:,} of {of:,} images"
    out.print(f"\n{looked}, {_outputs(record)}; dead: zero everywhere on every image")
    if record.classes:
        _favourites(out, record)
    _never(out, record.never)


def _favourites(out: Console, record: Record, most: int = 5) -> None:
    """The channels whose mean a class explains best, of all layers but the last, which is the classes."""
    followed = [
        (float(profile.eta_squared[index]), entry.key, int(index), int(profile.preferred_class[index]))
        for entry in list(record.values())[:-1]
        if (profile := entry.profile) and profile.eta_squared is not None and profile.preferred_class is not None
        for index in np.argsort(-np.nan_to_num(profile.eta_squared, nan=-1))[:most]
    ]
    for share, key, index, favourite in sorted(followed, reverse=True)[:most]:
        if share > 0 and 0 <= favourite < len(record.classes):
            name = _name(record.classes[favourite])
            out.print(f"{_name(key)} channel {index} follows {name}: the classes explain {share:.0%} of it")


def _compare(out: Console, record: Record) -> None:
    out.print(f"A  {_name(record.subject)}\nB  {_name(record.subject_b)}\n")
    for side, top in zip("AB", record.predictions, strict=False):
        if top:
            best = ", ".join(f"{_name(prediction.label)} {prediction.probability:.1%}" for prediction in top[:3])
            out.print(f"{side} sees  {best}")
    if record.predictions:
        out.print()
    if record.stages:
        out.print("[bold]the same stage of both[/bold]")
        _print_table(
            out, ("A", "shape", "dead", "B", "shape", "dead"), [_stage(record, pair) for pair in record.stages]
        )
        out.print()
    both = [pair for pair in record.pairs if pair.status not in ("only-a", "only-b")]
    if both:
        changed = by_change(both) + [pair for pair in both if pair.mean_abs is None]
        _print_rows(out, [pair_row(pair) for pair in changed])
    for status, side in (("only-a", "A"), ("only-b", "B")):
        names = [pair.name for pair in record.pairs if pair.status == status]
        if names:
            out.print(f"only in {side}: {_name(some(names, 6))}")
    counts = [(sum(pair.status == status for pair in record.pairs), status) for status in _STATUSES]
    out.print(f"\n{entry_word(record)}s: " + ", ".join(f"{count} {status}" for count, status in counts if count))


def _stage(record: Record, keys: tuple[str, str]) -> list[str]:
    """Path, shape and dead channels of A, and of B."""
    sides = [(key, record[f"{side}:{key}"]) for side, key in zip("ab", keys, strict=True)]
    return [cell for key, entry in sides for cell in (key, shape(entry.shape[1:]), dead_share(entry))]


_STATUSES = ("same", "changed", "shape", "only-a", "only-b")
_TABLES = {"weights": _weights, "features": _features, "compare": _compare, "survey": _survey}


def show(record: Record, path: Path | str | None = None) -> Path | None:
    """Print a record, or write what would be printed into a file. Raises OutputError."""
    text = io.StringIO()
    _TABLES[record.kind](console() if path is None else Console(file=text, width=_PIPE, highlight=False), record)
    return None if path is None else save(text.getvalue().encode("utf-8", "replace"), Path(path))


def show_structure(name: str, sizes: Sequence[int], layers: Sequence[Layer]) -> None:
    """Print the structure of a network as a tree."""
    out = console()
    root = Tree(f"[bold]{_name(name)}[/bold]  input {shape(sizes)}", guide_style="dim")
    branches = {"": root}
    for layer in layers:
        parent = layer.path.rpartition(".")[0]
        while parent not in branches:
            parent = parent.rpartition(".")[0]
        branches[layer.path] = branches[parent].add(_line(layer, layer.path.removeprefix(f"{parent}.")))
    out.print(root)
    top = [layer for layer in layers if "." not in layer.path]
    total, trainable = (sum(getattr(layer, name) for layer in top) for name in ("parameters", "trainable"))
    ran = sum(layer.leaf and layer.calls > 0 for layer in layers)
    out.print(f"\n{counted(ran, 'layer')} ran, {counted(total, 'parameter')}, {trainable:,} trainable")
    _never(out, [layer.path for layer in layers if layer.leaf and not layer.calls])


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
