"""The command `layerscope evidence`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from layerscope.commands.options import JSON, NETWORK_HELP, PAGE, Opener, deliver_report, network_options

__all__ = ["evidence"]


@click.command(epilog=NETWORK_HELP)
@click.argument("network")
@click.argument("image")
@click.option("--layer", help="Of Grad-CAM; by default the last with a map that counts.")
@click.option("--target", metavar="CLASS", help="Index or label; by default the predicted class.")
@click.option("--window", type=int, metavar="PX", help="Side of the patch that occlusion hides.")
@click.option("--stride", type=int, metavar="PX", help="Step of that patch.")
@PAGE
@network_options
@JSON
def evidence(network: str, image: str, out: Path | None, as_json: bool, opener: Opener, **options: Any) -> None:
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

    opened = opener(network)
    with terminal.bar("occlusion", count=True) as progress:
        report = units.evidence(opened, image, progress=progress, **options)
    deliver_report(report, evidence_page, out, as_json)
