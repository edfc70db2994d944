"""The command `layerscope features`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from layerscope.commands.options import BATCH, JSON, NETWORK_HELP, OUT, RECORD, Opener, deliver, network_options, say
from layerscope.errors import ImageError, UsageError

__all__ = ["features"]


@click.command(epilog=NETWORK_HELP)
@click.argument("network")
@click.argument("images", nargs=-1, required=True)
@click.option("--layers", multiple=True, metavar="GLOB", help="Paths or types of layers; may be repeated.")
@click.option("--channels", default="12", show_default=True, metavar="N|all", help="Channels in each picture.")
@click.option("--cmap", type=click.Choice(["viridis", "gray"]), default="viridis", show_default=True, help="Colours.")
@click.option(
    "--range", "mode", type=click.Choice(["channel", "layer", "network"]), default="channel", show_default=True,
    help="What black and white mean.",
)  # fmt: skip
@click.option("--ops", is_flag=True, help="Also what functions give between the modules, such as layer1.0/add.")
@click.option("--attention", is_flag=True, help="Also the weights of every attention, a head a channel.")
@click.option(
    "--predict/--no-predict", default=True, help="Without classes a pass may stop at the last layer asked for."
)
@BATCH
@network_options
@OUT
@RECORD
@JSON
def features(
    network: str,
    images: tuple[str, ...],
    channels: str,
    cmap: str,
    mode: str,
    out: Path | None,
    save: Path | None,
    as_json: bool,
    opener: Opener,
    **options: Any,
) -> None:
    """What photos look like inside a network: the feature maps of every layer, as the layer produced them.

    A glob selects layers by path or type; a container such as layer1 means the output of the whole stage.

    \b
    Examples:
      layerscope features AlexNet.pth tulip.jpg --out maps
      layerscope features resNet34.pth tulip.jpg --layers 'layer1*' --channels all --out maps
      layerscope features torchvision:resnet34=resNet34.pth tulip.jpg --layers Conv2d --cmap gray --range layer
    """
    from layerscope.inspection import features as look
    from layerscope.views import terminal

    if channels != "all" and not (channels.isdecimal() and int(channels) > 0):
        raise UsageError(f"--channels {channels}: give a number of channels, or all")
    gone = [image for image in images if not Path(image).exists()]
    if gone and options["layers"]:
        raise ImageError(f"{gone[0]}: no such image; check the path. If it is a layer, put --layers in front of it")
    opened = opener(network)
    if not as_json:
        say(f"preprocessing: {opened.preprocessing}")
    with terminal.bar("images", count=True) as progress:
        record = look(opened, images, maps=bool(out or save), progress=progress, **options)
    count = None if channels == "all" else int(channels)
    deliver(record, as_json, save, out, channels=count, cmap=cmap, mode=mode)
