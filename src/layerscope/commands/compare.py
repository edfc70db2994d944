"""The command `layerscope compare`."""

from __future__ import annotations

from pathlib import Path

import click

from layerscope.commands.options import DEVICE, JSON, NETWORK_HELP, OUT, RECORD, deliver

__all__ = ["compare"]


@click.command(epilog=NETWORK_HELP)
@click.argument("a")
@click.argument("b")
@click.option("--image", type=click.Path(), help="Run both networks on this image; without one compare checkpoints.")
@DEVICE
@OUT
@RECORD
@JSON
def compare(
    a: str, b: str, image: str | None, device: str | None, out: Path | None, save: Path | None, as_json: bool
) -> None:
    """Two networks on one photo, or two checkpoints tensor by tensor.

    Layers of the same name are subtracted; stages of the same size are put side by side, whatever the architectures.
    A record that is saved of two checkpoints holds the kernels of both, for `layerscope view`.

    \b
    Examples:
      layerscope compare AlexNet.pth resNet34.pth --image tulip.jpg --out both
      layerscope compare epoch1.pth epoch9.pth --record change.layerscope
    """
    from layerscope.comparison import compare_checkpoints, compare_networks
    from layerscope.views import terminal

    with terminal.bar("comparing") as progress:
        if image:
            record = compare_networks(a, b, image, device=device, progress=progress)
        else:
            record = compare_checkpoints(a, b, progress=progress, maps=bool(save))
    # The kernels of two checkpoints are for the viewer alone.
    deliver(record, as_json, save, out, None if image else record.only())
