"""The commands about single units and decisions: `layerscope unit` and `layerscope evidence`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from layerscope.options import JSON, NETWORK_HELP, network_of, preprocessing_options, say
from layerscope.text import printable

__all__ = ["evidence", "unit"]


@click.command(short_help="Where one unit looks, and the sum behind its value.", epilog=NETWORK_HELP)
@click.argument("network")
@click.argument("image")
@click.argument("layer")
@click.argument("channel", type=int)
@click.argument("position", nargs=-1, type=int)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the page as PNG.")
@preprocessing_options
@JSON
def unit(
    network: str,
    image: str,
    layer: str,
    channel: int,
    position: tuple[int, ...],
    out: Path | None,
    as_json: bool,
    **preprocessing: Any,
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

    found = units.unit(network_of(network, **preprocessing), image, layer, channel, position or None)
    _deliver_look(found, unit_page, out, as_json)


@click.command(short_help="Which pixels speak for a class.", epilog=NETWORK_HELP)
@click.argument("network")
@click.argument("image")
@click.option("--layer", help="Of Grad-CAM; by default the last with a map that counts.")
@click.option("--target", metavar="CLASS", help="Index or label; by default the predicted class.")
@click.option("--window", type=int, metavar="PX", help="Side of the patch that occlusion hides.")
@click.option("--stride", type=int, metavar="PX", help="Step of that patch.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the page as PNG.")
@preprocessing_options
@JSON
def evidence(
    network: str,
    image: str,
    layer: str | None,
    target: str | None,
    window: int | None,
    stride: int | None,
    out: Path | None,
    as_json: bool,
    **preprocessing: Any,
) -> None:
    """Which pixels speak for a class: Grad-CAM, and what hiding each part of the image does to it.

    Needs `pip install 'layerscope[evidence]'` (captum).

    \b
    Examples:
      layerscope evidence resNet34.pth tulip.jpg --out evidence.png
      layerscope evidence resNet34.pth tulip.jpg --target daisy --layer layer3
    """
    from layerscope import units
    from layerscope.views import terminal
    from layerscope.views.unit import evidence_page

    opened = network_of(network, **preprocessing)
    with terminal.bar("occlusion", count=True) as progress:
        found = units.evidence(
            opened, image, layer=layer, target=target, window=window, stride=stride, progress=progress
        )
    _deliver_look(found, evidence_page, out, as_json)


def _deliver_look(found: Any, page: Callable[[Any], bytes], out: Path | None, as_json: bool) -> None:
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
