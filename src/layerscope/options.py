"""What several commands share: types of options, the options themselves, and how a record is handed over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from layerscope.networks.open import Network
    from layerscope.record import Record

__all__ = [
    "JSON",
    "NETWORK_HELP",
    "OUT",
    "RECORD",
    "Floats",
    "Pair",
    "deliver",
    "network_of",
    "preprocessing_options",
    "say",
]

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


def preprocessing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: --size, --resize, --crop, --mean and --std."""
    options = [
        click.option("--size", type=Pair(), help="Resize to exactly this, without a crop."),
        click.option("--resize", type=Pair(), help="Shorter side (or exact height x width) before the crop."),
        click.option("--crop", type=Pair(), help="Centre crop."),
        click.option("--mean", type=Floats(), help="Subtracted from each channel, of values 0 to 1."),
        click.option("--std", type=Floats(), help="Divides each channel."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def network_of(given: str, size: Any, resize: Any, crop: Any, mean: Any, std: Any) -> Network:
    """The network that the user named, with the preprocessing that the user set."""
    from layerscope.networks.open import open_network

    network = open_network(given)
    network.preprocessing = network.preprocessing.changed(size, resize, crop, mean, std)
    return network


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
        from layerscope.text import counted
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


JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
OUT = click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for PNG pictures.")
RECORD = click.option("--record", "save", type=click.Path(path_type=Path, dir_okay=False), help="Save the record.")
