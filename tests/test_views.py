"""One contract for every view: each kind of record, each entry and each statistic of the table is in it.

And a statistic that is planted into the table reaches every view without another line of source.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from html import unescape
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from layerscope.records.kinds import KINDS
from layerscope.records.record import Record
from layerscope.stats import table
from layerscope.stats.table import STATISTICS, Statistic
from layerscope.text import number
from layerscope.views import VIEWS, documents, terminal
from layerscope.views import format as viewer_format
from layerscope.views.summary import rows
from layerscope.watching.sinks import table as sink_table
from tests.attacks.crafting import _compare, _features, _weights
from tests.survey import making
from tests.test_wire import read

DOCS = Path(__file__).parents[1] / "docs"
RMS = Statistic(
    "quadratic_mean", "RMS", "float", "root mean square of the finite values",
    lambda c: np.sqrt(c.m2 / c.count + c.mean**2), brief=True,
)  # fmt: skip


def _broken(columns):
    """So that no count is 0: one that is 0 of all entries is no column of a table for people."""
    return columns._replace(zeros=columns.zeros + 3, nan=columns.nan + 1, inf=columns.inf + 2)


def _with_counts(record: Record) -> Record:
    for entry in record.values():
        if entry.columns is not None:
            entry.columns = _broken(entry.columns)
        entry.whole = None if entry.columns is not None else entry.whole and _broken(entry.whole)
    return record


def record_of(kind: str) -> Record:
    made = {"features": _features, "weights": _weights, "compare": _compare, "survey": making.record}
    return _with_counts(made[kind]())


def text_of_tensorboard(logdir: Path) -> str:
    """What the text plugin gets, read with TensorBoard's own reader and shown with its own Markdown."""
    pytest.importorskip("tensorboard")
    from markdown import markdown
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logdir)).Reload()
    assert events.SummaryMetadata("statistics").plugin_data.plugin_name == "text"
    assert events.PluginTagToContent("text").keys() == {"statistics"}
    (event,) = events.Tensors("statistics")
    (text,) = event.tensor_proto.string_val
    assert (event.tensor_proto.dtype, event.tensor_proto.tensor_shape.dim) == (7, []), "one text; 7 is DT_STRING"
    page = markdown(text.decode(), extensions=["tables"])
    assert page.count("<tr>") == text.count(b"\n")
    return unescape(re.sub(r"<[^>]*>\s*", " ", page))


def written(view: str, record: Record, folder: Path) -> str:
    """All that a view writes of a record, as text."""
    paths = VIEWS[view].write(record, folder / view)
    assert paths
    if view == "tensorboard":
        return text_of_tensorboard(paths[0])
    if view == "png":
        return " ".join(path.name for path in paths)
    return unescape("\n".join(path.read_text("utf-8") for path in paths))


def test_every_view_can_be_loaded_and_its_target_is_described():
    assert {view.target for view in VIEWS.values()} == {"file", "folder"}
    assert [name for name, view in VIEWS.items() if view.prints] == ["terminal", "json"]


def test_every_view_and_every_statistic_is_in_the_documentation():
    record, commands = (DOCS / "record.md").read_text("utf-8"), (DOCS / "commands.md").read_text("utf-8")
    section = commands.split("## Statistics\n")[1].split("\n## ")[0]
    assert [name for name in VIEWS if f"\n| `{name}` |" not in record] == []
    assert [one.name for one in STATISTICS if f"`{one.name}`" not in section] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_shows_every_kind_and_its_entries(kind, view, tmp_path):
    record = record_of(kind)
    text = written(view, record, tmp_path)
    entries = [pair.name for pair in record.pairs] if record.pairs else list(record.entries)
    if view == "png" and kind == "compare":
        entries = ["stages", "changes"]  # all of them on one page
    if view == "png":
        entries = [name for name in entries if not name.endswith("num_batches_tracked")]  # a counter has no picture
    for name in entries:
        assert name.partition(":")[0] in text, (view, kind, name)
    if view in ("json", "html", "notebook"):
        assert record.subject in text
    if view == "json":
        data = json.loads(text)
        assert [data[name] for name in KINDS[kind].subjects] == [record.subject, record.subject_b][
            : len(KINDS[kind].subjects)
        ]


@pytest.mark.parametrize("view", ["terminal", "json"])
def test_views_that_print_do_so_without_a_target(view, tmp_path, capsys):
    assert VIEWS[view].write(record_of("features")) == []
    printed = capsys.readouterr().out
    (path,) = VIEWS[view].write(record_of("features"), tmp_path / "deep" / "a")
    assert printed == path.read_text("utf-8")


#: of each view, how a statistic stands in what it writes; a comparison has pairs in place of statistics
NAMED = {
    "json": '"{name}": ',
    "csv": "{name}",
    "terminal": " {label} ",
    "tensorboard": " {label} ",
    "html": '"name":"{name}"',
    "notebook": '"name":"{name}"',
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KINDS[kind].compares])
@pytest.mark.parametrize("view", NAMED)
@pytest.mark.parametrize("planted", [False, True])
def test_every_statistic_is_in_every_view(kind, view, planted, tmp_path, monkeypatch):
    if planted:
        monkeypatch.setattr(table, "STATISTICS", [*STATISTICS, RMS])
    text = written(view, record_of(kind), tmp_path)
    for one in table.STATISTICS:
        assert NAMED[view].format(name=one.name, label=one.label) in text, (view, one.name)
    assert (RMS.name in text or f" {RMS.label} " in text) == planted


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setattr(table, "STATISTICS", [*STATISTICS, RMS])


def rms_of(columns) -> np.ndarray:
    return np.sqrt(columns.m2 / columns.count + columns.mean**2)


def test_a_planted_statistic_has_its_value_in_plain_data(planted):
    features, weights = record_of("features"), record_of("weights")
    conv, kernels = features["conv"], weights["conv.weight"]
    data = documents.document(features)["layers"][0]["channels"]
    assert [one["quadratic_mean"] for one in data] == rms_of(conv.columns).tolist()
    assert documents.document(weights)["tensors"][0]["quadratic_mean"] == rms_of(kernels.total).item()
    assert documents.document(weights)["tensors"][2]["quadratic_mean"] is None, "a counter"
    layers = list(csv.DictReader(io.StringIO(documents.tables(features)["layers"])))
    assert float(layers[0]["quadratic_mean"]) == rms_of(conv.total).item()
    assert sink_table(weights)["quadratic_mean"][0] == rms_of(kernels.total).item()
    index = viewer_format.index(features)
    assert index["layers"][0]["total"]["quadratic_mean"] == rms_of(conv.total).item()
    described = {"name": RMS.name, "label": "RMS", "type": "float", "text": RMS.text, "brief": True}
    assert index["statistics"][-1] == described


#: the columns of 0.1.0
COLUMNS = {
    "layers": "path,call,type,shape,channels,dead,mean,std,min,max",
    "channels": "path,call,type,index,mean,std,min,max,zeros",
    "tensors": "name,shape,dtype,count,mean,std,min,max,zeros,nan,inf",
}


@pytest.mark.parametrize("kind", ["features", "weights", "survey"])
def test_columns_of_csv_keep_their_place_and_new_ones_stand_behind(kind, planted):
    texts = documents.tables(record_of(kind))
    for name in COLUMNS.keys() & texts.keys():
        before, new = COLUMNS[name].split(","), ["zeros", "nan", "inf", "quadratic_mean"]
        if kind == "survey":
            meaning = ["q01", "q05", "median", "q95", "q99", "silent", "class", "selectivity", "explained"]
            before += meaning if name == "channels" else ["effective_rank", "copies"]
        assert texts[name].splitlines()[0].split(",") == before + [one for one in new if one not in before]


def test_a_planted_statistic_has_its_value_in_tables_for_people(planted, monkeypatch):
    record = record_of("weights")
    want = number(rms_of(record["conv.weight"].total).item())
    assert rows(record, [RMS])[0]["RMS"] == want
    from rich.console import Console

    for width in (80, 160):
        text = io.StringIO()
        monkeypatch.setattr(terminal, "console", lambda text=text, width=width: Console(file=text, width=width))
        terminal.show(record)
        head, first = text.getvalue().splitlines()[:2]
        assert want == first[: head.index("RMS") + 3].split()[-1]
        assert max(map(len, text.getvalue().splitlines())) <= width


def test_a_planted_statistic_is_in_the_caption_of_a_picture(planted, monkeypatch):
    from layerscope.views import png

    lines = []
    monkeypatch.setattr(png.Sheet, "text", lambda *arguments, **_: lines.append(arguments[3]) or 0)
    record = record_of("weights")
    png.histogram_sheet(record["conv.weight"])
    want = number(rms_of(record["conv.weight"].total).item())
    assert any(line.endswith(f"RMS {want}") for line in lines)
    total = record["conv.weight"].total
    counts = f"zeros {total.zeros.item():,}    NaN {total.nan.item():,}    inf {total.inf.item():,}    "
    assert any(line.startswith(counts) for line in lines)


def test_a_planted_statistic_is_in_the_blocks_under_its_name(planted):
    record, layout = record_of("features"), viewer_format.layout()
    entry = record["conv"]
    found = read(viewer_format.block(entry, 0), layout)
    assert np.array_equal(found["quadratic_mean"], rms_of(entry.columns).astype(np.float32))
    assert np.array_equal(found["codes"], entry.maps[0].codes)
    packed = read(viewer_format.predicted(viewer_format.block(entry, 0)), layout)
    assert np.array_equal(packed["codes"], entry.maps[0].codes)


PAGE = """
const [, code, layout, data] = process.argv,
  { parseBlock } = await import(code + "block.js"),
  { orderOf, tilesOf } = await import(code + "tiles.js"),
  block = parseBlock(Uint8Array.from(Buffer.from(data, "base64")).buffer, JSON.parse(layout)),
  tiles = tilesOf(block, { layout: "NCHW", shape: [], dead: [], channels: block.C });
console.log(JSON.stringify([[...block.stats.quadratic_mean], [...orderOf(tiles, "quadratic_mean", null)]]));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node to run the page's code")
def test_the_page_reads_a_planted_statistic_and_sorts_by_it(planted):
    import base64

    entry = record_of("features")["conv"]
    data = base64.b64encode(viewer_format.block(entry, 0)).decode()
    code = (files("layerscope") / "web").as_uri() + "/"
    command = ["node", "--input-type=module", "-e", PAGE, code, json.dumps(viewer_format.layout()), data]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    values, order = json.loads(done.stdout)
    assert np.array_equal(np.float32(values), rms_of(entry.columns).astype(np.float32))
    assert order == np.argsort(-rms_of(entry.columns), kind="stable").tolist()
