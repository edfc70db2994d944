"""The command `layerscope layers`."""

from __future__ import annotations

import click

from layerscope.commands.options import JSON, NETWORK_HELP, Opener, network_options, say

__all__ = ["layers"]


@click.command(epilog=NETWORK_HELP)
@click.argument("network")
@click.option("--image", type=click.Path(), help="Run this image; without one an input of zeros.")
@click.option("--input", "shape", metavar="CxHxW", help="Shape of the input of zeros, such as 3x224x224.")
@network_options
@JSON
def layers(network: str, image: str | None, shape: str | None, as_json: bool, opener: Opener) -> None:
    """The structure of a network as a tree: types, output shapes, parameters, how often each module ran.

    The names are those that the other commands take.

    \b
    Examples:
      layerscope layers AlexNet.pth
      layerscope layers torchvision:resnet34 --input 3x64x64
    """
    from layerscope.inspection import structure
    from layerscope.networks.feeding import batch_of, zeros
    from layerscope.views import documents, terminal

    opened = opener(network)
    batch = batch_of(opened, image)[0] if image else zeros(opened, shape)
    found = structure(opened, batch)
    if as_json:
        click.echo(documents.dumps(documents.structure_document(opened.subject, tuple(batch.shape), found)))
        return
    for note in opened.notes:
        say(note)
    terminal.show_structure(opened.subject, tuple(batch.shape), found)
