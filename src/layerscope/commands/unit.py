"""The command `layerscope unit`."""

from __future__ import annotations

from pathlib import Path

import click

from layerscope.commands.options import JSON, NETWORK_HELP, PAGE, Opener, deliver_report, network_options

__all__ = ["unit"]


@click.command(epilog=NETWORK_HELP)
@click.argument("network")
@click.argument("image")
@click.argument("layer")
@click.argument("channel", type=int)
@click.argument("position", nargs=-1, type=int)
@PAGE
@network_options
@JSON
def unit(
    network: str,
    image: str,
    layer: str,
    channel: int,
    position: tuple[int, ...],
    out: Path | None,
    as_json: bool,
    opener: Opener,
) -> None:
    """One unit: the input pixels that it depends on, and how its value came about, product by product.

    LAYER is a name of `layerscope layers`, CHANNEL counts from 0. Without a POSITION (row and column) the greatest
    value of the channel is taken.

    \b
    Examples:
      layerscope unit AlexNet.pth tulip.jpg features.3 7 --out unit.png
      layerscope unit resNet34.pth tulip.jpg layer1.0.relu:1 5 12 30 --json
    """
    from layerscope import units
    from layerscope.views.unit import unit_page

    found = units.unit(opener(network), image, layer, channel, position or None)
    deliver_report(found, unit_page, out, as_json)
