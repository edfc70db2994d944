"""Names from files are text in every view: they become no markup, no code, no formula, no escape, no path."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from layerscope.records.file import load
from layerscope.records.record import Record
from layerscope.stats.table import shown
from layerscope.text import json_text
from layerscope.views import documents, eventfile, html, notebook, pictures, tensorboard, terminal
from layerscope.views import format as viewer_format
from layerscope.views.summary import rows
from tests.attacks import hostile
from tests.attacks.crafting import _compare, _features, _weights
from tests.browsing import served
from tests.survey import making

KINDS = ["features", "weights", "compare", "survey"]
BENIGN = {"features": _features, "weights": _weights, "compare": _compare, "survey": making.record}


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    return hostile.records()


class Markup(HTMLParser):
    """Elements with their attributes' names, in order, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.elements.append((tag, tuple(sorted(given))))
        self._inside = given.get("id") or tag

    def handle_data(self, data):
        self.texts[self._inside] = self.texts.get(self._inside, "") + data


@pytest.mark.parametrize("kind", KINDS)
def test_an_html_file_has_the_same_elements_whatever_the_names_are(records, kind):
    page, true = (Markup(html.document(one)[0]) for one in (records[kind], BENIGN[kind]()))
    assert page.elements == true.elements
    assert "<" not in page.texts["layerscope-index"]  # a browser ends a script at `</script/x` and `</script x` too
    assert json.loads(page.texts["layerscope-index"])["subject"] == records[kind].subject
    assert page.texts["title"].startswith(hostile.ATTACK[:20])


@pytest.mark.parametrize("kind", KINDS)
def test_a_notebooks_frame_is_one_element(records, kind):
    assert Markup(notebook.frame(records[kind])).elements == [("iframe", ("sandbox", "srcdoc", "style"))]
    assert repr(records[kind]).isprintable()


def steers(text: str) -> list[str]:
    """What could steer a terminal: all that is not printable, and invisible characters that turn the line around."""
    return [letter for letter in text if not letter.isprintable() and letter != "\n"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_terminal_is_not_steered(records, kind, capsys):
    terminal.show(records[kind])
    terminal.show_structure(hostile.ATTACK, (1, 2), hostile.layers())
    terminal.warn(hostile.ATTACK)
    captured = capsys.readouterr()
    assert not steers(captured.out + captured.err)
    assert "[bold red]" in captured.out


def test_a_progress_bar_is_not_steered(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("layerscope.views.terminal.Console", lambda **_: Console(file=stream, force_terminal=True))
    from rich.console import Console

    with terminal.bar("x") as update:
        update(1, 2, hostile.ATTACK)
    assert "]0;pwned" not in stream.getvalue() or "\x1b]0;" not in stream.getvalue()
    assert "\u202e" not in stream.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_holds_no_formula(records, kind):
    """A spreadsheet runs a cell that begins with = + - or @; docs/commands.md says that these get an apostrophe."""
    for text in documents.tables(records[kind]).values():
        rows = list(csv.reader(io.StringIO(text)))
        assert len(rows) > 1
        assert len({len(row) for row in rows}) == 1
        for cell in (cell for row in rows for cell in row):
            if cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
                float(cell)  # a number below zero is one
        assert any(cell.startswith("'=1+1") for row in rows for cell in row)


def test_figures_stay_figures_in_a_table():
    rows = list(csv.DictReader(io.StringIO(documents.tables(_features())["layers"])))
    assert float(rows[0]["min"]) < 0


@pytest.mark.parametrize("kind", KINDS)
def test_json_gives_every_name_back(records, kind):
    data = json.loads(documents.dumps(documents.document(records[kind])))
    assert data[{"weights": "checkpoint", "compare": "a"}.get(kind, "network")] == records[kind].subject
    assert json.loads(json_text(viewer_format.index(records[kind])))["subject"] == records[kind].subject


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_lie_in_their_folder_and_say_nothing_beside_themselves(records, kind, tmp_path):
    written = pictures.write(records[kind], tmp_path / "out")
    assert written
    for path in written:
        assert path.parent == tmp_path / "out" and path.is_file()
        assert all(letter.isascii() and (letter.isalnum() or letter in "._-") for letter in path.name), path.name
        assert len(path.name) < 200
        with Image.open(path) as image:
            assert not image.info.get("Comment") and not getattr(image, "text", {})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_survives_its_own_names(records, kind, tmp_path):
    again = load(records[kind].save(tmp_path / "a.layerscope"))
    assert list(again.entries) == list(records[kind].entries)
    assert again.notes == records[kind].notes and again.classes == records[kind].classes
    assert [one.name for one in again.shown] == [one.name for one in records[kind].shown]


def test_tags_of_tensorboard_are_text(records, tmp_path):
    for kind in ("features", "weights"):
        tensorboard.export(records[kind], tmp_path / kind)
        (path,) = (tmp_path / kind).iterdir()
        assert path.name.startswith("events.out.tfevents.")
        data = path.read_bytes()
        assert hostile.ATTACK.encode() in data
        at = 0
        while at < len(data):  # whole TFRecords to the end: no name cuts one
            size = int.from_bytes(data[at : at + 8], "little")
            at += 16 + size
        assert at == len(data)
    assert eventfile.scalar("x\ud800", 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_tensorboard_is_a_table_whatever_the_names_are(records, kind):
    """TensorBoard shows Markdown with links and pictures of the web in it: a name must become neither."""
    markdown = pytest.importorskip("markdown").markdown
    page = Markup(markdown(tensorboard._markdown(rows(records[kind], shown())), extensions=["tables", "fenced_code"]))
    assert {element for element, _ in page.elements} == {"table", "thead", "tbody", "tr", "th", "td"}
    true = rows(BENIGN[kind](), shown())
    assert sum(element == "tr" for element, _ in page.elements) == 1 + len(true)
    assert sum(element == "td" for element, _ in page.elements) == len(true) * len(true[0])


#: clicks everything that can be clicked and opens everything that can be opened, except what leaves the page
EVERYTHING = """async () => {
  const wait = () => new Promise((done) => setTimeout(done, 60));
  for (const one of document.querySelectorAll("details")) one.open = true;
  for (const key of ["k", "/", "?", "t", "j", "f", "w"]) {
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, ctrlKey: key === "k" }));
    await wait();
    for (const one of document.querySelectorAll("dialog[open]")) one.close();
  }
  const skip = new Set(["file-open", "copy-link"]);
  const all = [...document.querySelectorAll("button, [role=button], [role=option], #layer-list *, #predictions *")];
  for (const one of all.slice(0, 80)) {
    if (skip.has(one.id) || one.closest("dialog") || !one.isConnected) continue;
    one.click();
    await wait();
  }
  const foreign = (one) => [...one.attributes].some((a) => /^on/i.test(a.name))
    || one.tagName === "SCRIPT" && !one.id && !one.src
    || one.tagName === "IMG" && one.id !== "input-image" && !/^(data:|blob:|$)/.test(one.getAttribute("src") ?? "");
  return [...document.querySelectorAll("*")].filter(foreign)
    .map((one) => one.outerHTML.slice(0, 200));
}"""


@pytest.mark.browser
@pytest.mark.parametrize("how", ["served", "file"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_page_shows_names_as_text(records, kind, how, open_page, tmp_path):
    """Nothing runs, nothing is added; an attempt would be an error on the console, which fails the test as well."""
    if how == "file":
        path = records[kind].to_html(tmp_path / "a.html")
        _shown(open_page(path.as_uri()))
    else:
        with served(records[kind]) as viewer:
            _shown(open_page(viewer.url))


def _shown(page) -> None:
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    before = page.evaluate("document.scripts.length")
    found = [one for one in page.evaluate(EVERYTHING) if not one.startswith('<script type="module"')]
    assert found == []
    assert page.evaluate("document.scripts.length") == before
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert "onerror=window.pwned" in page.evaluate("document.body.innerText + document.title")


@pytest.mark.browser
def test_a_notebook_shows_names_as_text(records, chromium, tmp_path):
    path = Path(tmp_path / "notebook.html")
    path.write_text(f"<!doctype html><meta charset=utf-8>{notebook.frame(records['features'])}", "utf-8")
    page = chromium.new_page()
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.goto(path.as_uri())
    frame = page.frames[1]
    frame.locator("#stage[data-drawn]").wait_for(timeout=15_000)
    assert frame.evaluate("typeof window.pwned") == "undefined"
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert page.evaluate("document.querySelectorAll('img, script').length") == 0
    with pytest.raises(Exception, match=r"[Bb]locked|SecurityError|cross-origin"):
        frame.evaluate("window.parent.document.title")
    page.close()
