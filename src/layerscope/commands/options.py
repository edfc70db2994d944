"""What several commands share: types of options, the options themselves, and how a record is handed over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerscope.text import counted, printable

if TYPE_CHECKING:
    from layerscope.networks.open import Network
    from layerscope.records.record import Record

__all__ = [
    "BATCH", "DEVICE", "JSON", "NETWORK_HELP", "OUT", "PAGE", "RECORD", "Floats", "Opener", "Pair", "complain",
    "deliver", "deliver_report", "network_options", "say",
]  # fmt: skip

NETWORK_HELP = """
NETWORK is a checkpoint whose architecture is recognised (AlexNet.pth), NAME=CHECKPOINT, torchvision:NAME, timm:NAME,
layerscope:alexnet, layerscope:resnet34, layerscope:resnet101, a TorchScript or torch.export file, or
path/to/file.py:callable, which runs your code.
"""


class Pair(click.ParamType):
    """`224`, `224x320` (height x width) or `none`."""

    name = "PX|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if value == "none":
            return "none"
        sizes = value.lower().split("x")
        if len(sizes) > 2 or not all(size.isdecimal() and 0 < int(size) <= 8192 for size in sizes):
            self.fail(f"{value!r} is no size; write 224, 224x320 or none", param, ctx)
        return int(sizes[0]) if len(sizes) == 1 else (int(sizes[0]), int(sizes[1]))


class Floats(click.ParamType):
    """Numbers with commas between them: one for gray, three for RGB."""

    name = "R,G,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            numbers = tuple(float(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, 3):
            self.fail(f"{value!r} is not one or three numbers with commas between them", param, ctx)
        return numbers


DEVICE = click.option("--device", metavar="NAME", help="Run on cpu, cuda, cuda:1, mps, or auto; by default the CPU.")
BATCH = click.option(
    "--batch", "batch_size", type=click.IntRange(1), default=16, show_default=True, metavar="N", help="Images a pass."
)
#: opens the network that the user named; `keywords` are the options that were given for it
Opener = partial["Network"]


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: --device, --size, --resize, --crop, --mean, --std; the command gets an `opener` instead."""
    names = ("device", "size", "resize", "crop", "mean", "std")

    @wraps(command)
    def opening(**given: Any) -> Any:
        settings = {name: given.pop(name) for name in list(given) if name in names}
        return command(opener=partial(_network_of, **settings), **given)

    options = [
        DEVICE,
        click.option("--size", type=Pair(), help="Resize to exactly this, without a crop."),
        click.option("--resize", type=Pair(), help="Shorter side (or exact height x width) before the crop."),
        click.option("--crop", type=Pair(), help="Centre crop."),
        click.option("--mean", type=Floats(), help="Subtracted from each channel, of values 0 to 1."),
        click.option("--std", type=Floats(), help="Divides each channel."),
    ]
    for option in reversed(options):
        opening = option(opening)
    return opening


def _network_of(given: str, device: str | None, **preprocessing: Any) -> Network:
    """The network that the user named, on the device and with the preprocessing that the user set."""
    from layerscope.networks.open import open_network

    network = open_network(given, device)
    if device:
        from layerscope.networks.devices import described
        from layerscope.networks.foreign import home_of

        say(f"device: {described(home_of(network.model)[0])}")
    network.preprocessing = network.preprocessing.changed(**preprocessing)
    return network


def complain(text: str) -> None:
    """An error on standard error, without control characters that a file could have put into it."""
    click.echo(f"layerscope: {printable(text)}", err=True)


def say(text: str) -> None:
    """One line on standard error."""
    from layerscope.views.terminal import warn

    warn(text)


def deliver(
    record: Record, as_json: bool, save: Path | None, out: Path | None, shown: Record | None = None, **options: Any
) -> None:
    """Write what was asked for, then show the record, or `shown` in its place: what is saved may hold more."""
    from layerscope.views import documents, terminal

    if save:
        record.save(save)
        say(f"record: {save}")
    record = shown or record
    if out:
        from layerscope.views import pictures

        with terminal.bar("pictures", count=True) as progress:
            written = pictures.write(record, out, progress=progress, **options)
        say(f"{counted(len(written), 'picture')} in {out}")
    if as_json:
        click.echo(documents.dumps(documents.document(record)))
        return
    for note in record.notes:
        say(note)
    terminal.show(record)


def deliver_report(found: Any, page: Callable[[Any], bytes], out: Path | None, as_json: bool) -> None:
    """Write the page of a unit or a decision where one was asked for, then print it."""
    from layerscope.files import save
    from layerscope.views import documents

    if out:
        save(page(found), out)
        say(f"picture: {out}")
    if as_json:
        click.echo(documents.dumps(found.to_json()))
        return
    for line in found.text().splitlines():
        click.echo(printable(line))


JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
OUT = click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for PNG pictures.")
PAGE = click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the page as PNG.")
RECORD = click.option("--record", "save", type=click.Path(path_type=Path, dir_okay=False), help="Save the record.")
