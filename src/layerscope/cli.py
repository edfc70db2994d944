"""The command line: a table of commands, and how each of them may end. Nothing heavy is imported at the top."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from layerscope._version import __version__
from layerscope.commands.options import complain
from layerscope.errors import LayerscopeError, UsageError

__all__ = ["COMMANDS", "cli", "commands", "main"]


#: the commands in the order of --help, which loads none of them; each is the function of its name in `commands/NAME.py`
COMMANDS = {
    "demo": "The main job on a real network and a real photo.",
    "weights": "Statistics, histograms, kernels of a checkpoint.",
    "layers": "The structure of a network as a tree.",
    "features": "The feature maps of photos, layer by layer.",
    "view": "A page on a record, a training, or a network at work.",
    "unit": "Where one unit looks, and the sum behind its value.",
    "evidence": "Which pixels speak for a class.",
    "compare": "Two networks on one photo, or two checkpoints.",
    "survey": "A whole data set: what each channel is for, which are dead.",
    "train": "Train a network on a folder of images.",
    "export": "A record or a training as HTML, CSV or TensorBoard log.",
}


def _command(name: str) -> click.Command:
    return getattr(import_module(f"layerscope.commands.{name}"), name)


def commands() -> dict[str, click.Command]:
    """Every command by its name, all of them loaded."""
    return {name: _command(name) for name in COMMANDS}


class _Group(click.Group):
    """The commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return _command(name) if name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

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
    except LayerscopeError as error:
        complain(str(error))
        code = 2 if isinstance(error, UsageError) else 1
    except (KeyboardInterrupt, click.Abort):
        complain("interrupted")
        code = 130
    except BrokenPipeError:
        # The reader of a pipe has left, as `head` does; closing standard output again would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except MemoryError:
        complain("out of memory; give fewer or smaller images, or fewer layers (--layers)")
        code = 1
    except Exception as error:  # whatever else happens, the user gets one line
        complain(f"{type(error).__name__}: {' '.join(str(error).split())} (set LAYERSCOPE_DEBUG=1 for the traceback)")
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
