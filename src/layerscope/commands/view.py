"""The command `layerscope view`."""

from __future__ import annotations

from typing import Any

import click

from layerscope.commands.options import BATCH, NETWORK_HELP, Opener, complain, network_options
from layerscope.errors import UsageError

__all__ = ["view"]


@click.command(epilog=NETWORK_HELP)
@click.argument("what", metavar="RECORD|RUN|NETWORK")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--against", metavar="NETWORK", help="Another network, side by side on one image.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Listen here; by default where it is free.")
@click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
@BATCH
@network_options
def view(what: str, images: tuple[str, ...], no_browser: bool, opener: Opener, **options: Any) -> None:
    """The viewer: every channel on one sheet, from a unit to its arithmetic, in the browser of this machine.

    Shows a record that was saved with --record, follows a training that layerscope.watch writes, or runs a network on
    images; others can be dropped on the page. Ctrl-C ends it.

    \b
    Examples:
      layerscope view tulip.layerscope
      layerscope view runs/a
      layerscope view AlexNet.pth tulip.jpg
      layerscope view AlexNet.pth tulip.jpg --against resNet34.pth
      layerscope view torchvision:resnet34=resNet34.pth --port 8000 --no-browser
    """
    from layerscope.server import is_record
    from layerscope.server import view as serve
    from layerscope.server.runs import run_path

    given = [f"--{name}" for name, value in opener.keywords.items() if value is not None]
    if given and (is_record(what) or run_path(what)):
        raise UsageError(f"{given[0]}: {what} is a record, and is shown as it was made; give a network")
    serve(what, images, browser=not no_browser, opener=opener, say=click.echo, warn=complain, **options)
