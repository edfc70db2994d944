"""The command `layerscope survey`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from layerscope.commands.options import BATCH, JSON, NETWORK_HELP, OUT, Opener, deliver, network_options, say

__all__ = ["survey"]


@click.command(epilog=NETWORK_HELP)
@click.argument("network")
@click.argument("images", nargs=-1, required=True)
@click.option("--layers", multiple=True, metavar="GLOB", help="Paths or types of layers; may be repeated.")
@click.option("--top", default=9, show_default=True, metavar="K", help="Best images of each channel.")
@click.option(
    "--histograms", multiple=True, metavar="GLOB", default=("*Conv*",), show_default=True,
    help="Layers whose channels get a histogram; '*' for all.",
)  # fmt: skip
@click.option("--against", metavar="NETWORK", help="Another network: how alike the layers of both are (CKA).")
@click.option("--engine", default="local", show_default=True, help="Who works: local, this machine; ray, Ray's actors.")
@click.option(
    "--workers", type=click.IntRange(0), default=0, metavar="N",
    help="Processes of one thread each; by default this one alone.",
)  # fmt: skip
@click.option("--address", default="", help="Of a Ray cluster that runs already.")
@click.option("--record", "save", type=click.Path(path_type=Path, dir_okay=False), help="Save the record, resumably.")
@click.option("--restart", is_flag=True, help="Begin again, whatever was done before.")
@BATCH
@network_options
@OUT
@JSON
def survey(
    network: str,
    images: tuple[str, ...],
    against: str | None,
    save: Path | None,
    out: Path | None,
    as_json: bool,
    opener: Opener,
    **options: Any,
) -> None:
    """A whole data set: statistics of every channel, its best images, what it follows, and which are dead.

    IMAGES: a folder with one folder of images a class, a folder of images, a text file with a path a line, MNIST's idx
    files, or image files. With --record a survey that was killed goes on where it was when it is started again;
    Ctrl-C leaves the record of what is done.

    \b
    Examples:
      layerscope survey resNet34.pth flowers/ --record flowers.layerscope
      layerscope view flowers.layerscope
      layerscope survey AlexNet.pth photos/ --layers Conv2d --out best
      layerscope survey AlexNet.pth photos/ --against resNet34.pth
      layerscope survey resNet34.pth imagenet/val --engine ray --record val.layerscope
    """
    from layerscope.surveying import survey as run
    from layerscope.views import terminal

    opened = opener(network)
    other = opener(against) if against else None
    if not as_json:
        say(f"preprocessing: {opened.preprocessing}")
    with terminal.bar("survey", count=True, unit="images") as progress:
        source = images[0] if len(images) == 1 else list(images)
        record = run(opened, source, against=other, record=save, progress=progress, **options)
    if save:
        say(f"record: {save}")
    deliver(record, as_json, None, out)
    if record.provenance["partial"]:
        raise KeyboardInterrupt
