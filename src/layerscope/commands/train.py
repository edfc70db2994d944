"""The command `layerscope train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from layerscope.commands.options import DEVICE

__all__ = ["train"]


@click.command()
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--network", required=True, help="layerscope:, torchvision: or timm:NAME, or file.py:function.")
@click.option("--weights", metavar="FILE", help="Start from this checkpoint; a head that does not fit is new.")
@click.option("--freeze", is_flag=True, help="Train the new head alone.")
@click.option("--epochs", default=1, show_default=True, help="Times that every image is seen.")
@DEVICE
@click.option("--batch", "batch_size", default=32, show_default=True, help="Images a step.")
@click.option("--lr", default=2e-4, show_default=True, help="Learning rate of Adam.")
@click.option("--images", "most", type=int, metavar="N", help="Use N images at most, drawn evenly over the classes.")
@click.option("--val", default=0.2, show_default=True, help="Share of the images that is held out.")
@click.option("--size", type=int, metavar="PX", help="Train at this height and width.")
@click.option("--seed", default=0, show_default=True, help="Of weights, shuffling and which images are held out.")
@click.option(
    "--save", type=click.Path(path_type=Path, dir_okay=False), default=Path("network.pth"), show_default=True,
    help="The checkpoint of the best epoch.",
)  # fmt: skip
@click.option("--logdir", type=click.Path(path_type=Path, file_okay=False), help="Write a TensorBoard log.")
@click.option("--probe", type=click.Path(path_type=Path), help="Image whose feature maps are logged.")
def train(images: Path, network: str, save: Path, **options: Any) -> None:
    """Train a network on a folder of images by class, or on MNIST's or Fashion-MNIST's idx files.

    The best checkpoint is kept at every epoch; Ctrl-C leaves it whole. classes.json beside it names the classes.

    \b
    Examples:
      layerscope train flowers/ --network layerscope:alexnet --epochs 10 --save AlexNet.pth --logdir runs/alexnet
      layerscope train flowers/ --network layerscope:resnet34 --weights old.pth --freeze --save resNet34.pth
      layerscope train fashion-mnist/ --network layerscope:alexnet --images 8000 --save AlexNet.pth
    """
    from layerscope.training import train as run
    from layerscope.views import terminal

    with terminal.bar("training") as progress:
        result = run(images, network, save, say=click.echo, progress=progress, **options)
    click.echo(f"{save}: best accuracy {result.best_accuracy:.3f} on held-out images, epoch {result.epoch}")
    click.echo(f"next: layerscope features {save} IMAGE --out maps")
