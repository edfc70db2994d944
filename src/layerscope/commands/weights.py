"""The command `layerscope weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from layerscope.commands.options import JSON, OUT, RECORD, deliver

__all__ = ["weights"]


@click.command()
@click.argument("checkpoint")
@click.option("--match", multiple=True, metavar="GLOB", help="Only tensors whose name matches; may be repeated.")
@click.option("--bins", default=50, show_default=True, help="Bins of the histograms.")
@click.option("--csv", type=click.Path(path_type=Path, dir_okay=False), help="Write the table as CSV.")
@OUT
@RECORD
@JSON
def weights(
    checkpoint: str, csv: Path | None, out: Path | None, save: Path | None, as_json: bool, **options: Any
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
        record = look(checkpoint, maps=bool(out or save), progress=progress, **options)
    if csv:
        write(documents.tables(record)["tensors"].encode(), csv)
    deliver(record, as_json, save, out)
