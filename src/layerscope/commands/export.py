"""The command `layerscope export`."""

from __future__ import annotations

from pathlib import Path

import click

from layerscope.commands.options import say
from layerscope.errors import UsageError

__all__ = ["export"]


@click.command()
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
    from layerscope.records.file import load
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
