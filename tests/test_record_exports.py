"""A record writes itself: each method, and the examples in their docstrings."""

from __future__ import annotations

import csv
import doctest
import io
import json

import pytest
from PIL import Image

import layerscope
from layerscope.errors import OutputError, UsageError
from layerscope.records.file import load
from layerscope.records.record import Record
from layerscope.views import documents
from tests.survey import making


@pytest.fixture
def record(small, photo):
    return layerscope.features(small, photo, layers=["stem", "block.conv"])


def test_the_examples_of_a_record_run(record, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [
        test for test in doctest.DocTestFinder().find(Record, globs={"record": record, "json": json}) if test.examples
    ]
    assert {test.name.split(".")[1] for test in found} >= {
        "save",
        "show",
        *(n for n in dir(Record) if n.startswith("to_")),
    }
    for test in found:
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0, test.name


def test_tables(record, tmp_path):
    paths = record.to_csv(tmp_path / "tables")
    assert paths == [tmp_path / "tables" / "layers.csv", tmp_path / "tables" / "channels.csv"]
    assert [row["path"] for row in csv.DictReader(paths[0].read_text().splitlines())] == ["stem", "block.conv"]
    names = [path.name for path in making.record().to_csv(str(tmp_path))]
    assert names == ["layers.csv", "channels.csv", "examples.csv", "histograms.csv"]


def test_a_document(record, tmp_path):
    path = record.to_json(str(tmp_path / "a.json"))
    assert path == tmp_path / "a.json"
    assert json.loads(path.read_text()) == json.loads(documents.dumps(documents.document(record)))


def test_pictures(record, tmp_path):
    all_ = record.to_png(tmp_path / "all", channels=None, range="network")
    some = record.to_png(str(tmp_path / "some"), channels=1, cmap="gray")
    assert [path.name for path in all_] == [path.name for path in some]
    assert all(path.parent == tmp_path / "all" for path in all_)
    sizes = [Image.open(io.BytesIO(paths[1].read_bytes())).size for paths in (all_, some)]
    assert sizes[0][0] * sizes[0][1] > sizes[1][0] * sizes[1][1]


@pytest.mark.parametrize("option", [{"cmap": "virdis"}, {"range": "pixel"}])
def test_pictures_in_colours_that_do_not_exist(record, tmp_path, option):
    (name, value), *_ = option.items()
    with pytest.raises(UsageError, match=f"{name}='{value}': does not exist; give one of .*(gray|layer)"):
        record.to_png(tmp_path / "pictures", **option)
    assert not (tmp_path / "pictures").exists()


def test_a_log(record, tmp_path):
    assert record.to_tensorboard(tmp_path / "log") == tmp_path / "log"
    assert list((tmp_path / "log").glob("events.*"))


def test_it_shows_itself(record, capsys):
    record.show()
    assert "block.conv" in capsys.readouterr().out


def test_a_page_and_a_file(record, tmp_path):
    assert b"block.conv" in record.to_html(tmp_path / "a.html").read_bytes()
    assert list(load(record.save(tmp_path / "a.layerscope")).entries) == list(record.entries)


@pytest.mark.parametrize("what", ["save", "to_csv", "to_json", "to_png", "to_tensorboard", "to_html"])
def test_what_cannot_be_written_is_named(record, tmp_path, what):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/x"):
        getattr(record, what)(tmp_path / "file" / "x")
