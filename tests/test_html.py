"""The HTML file and the notebook frame: everything inside, nothing that runs but the page's own code."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html as markup
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import layerscope
from layerscope.errors import LayerscopeError, OutputError
from layerscope.records.maps import Maps, shrunk
from layerscope.records.record import Entry, Finding, Picture, Prediction, Record
from layerscope.records.sites import Site
from layerscope.views import bundle, html, notebook
from layerscope.views import format as viewer_format
from layerscope.views.packing import fitted
from tests.test_wire import read
from tests.web.making import entry_of

WEB = {
    "index.html": '<!doctype html><html><head><meta charset="utf-8"><title>layerscope</title>'
    '<link rel="stylesheet" href="/web/style.css">'
    '<script type="module" src="/web/main.js"></script></head><body><main></main></body></html>',
    "style.css": "body { color: red }",
    "main.js": 'import { a } from "./a.js";\nimport {\n  b,\n} from "./b.js";\nconsole.log(a, b, "</script>");\n',
    "a.js": 'import { b } from "./b.js";\nexport const a = b + 1;\n',
    "b.js": "export function one() { return 1; }\nexport async function two() {}\nexport const b = 1;\n",
}


class Seen(HTMLParser):
    """The scripts and other elements that a browser would find."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict, str]] = []
        self.tags: list[tuple[str, dict]] = []
        self.title, self.inside = "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
            self.inside = True

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "title":
            self.title += data
            self.tags.append(("", {}))
        if self.inside and self.scripts:
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "script"

    def by_id(self, name: str) -> str:
        return next(text for attrs, text in self.scripts if attrs.get("id") == name)


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setattr(html, "sources", lambda: WEB)


@pytest.fixture
def record(small, photo):
    return layerscope.features(small, photo)


def modules(**texts: str) -> dict[str, str]:
    return {f"{name}.js": text for name, text in texts.items()}


def test_modules_are_laid_end_to_end_imports_first():
    code = {name: text for name, text in WEB.items() if name.endswith(".js")}
    text = bundle.bundle(code, "main.js")
    assert [line for line in text.splitlines() if line.endswith(".js")] == ["// b.js", "// a.js", "// main.js"]
    assert not re.search(r"^\s*(import|export)\b", text, re.M)
    assert "function one() { return 1; }" in text
    assert "async function two() {}" in text


def test_a_circle_of_imports_ends():
    code = modules(
        a='import { b } from "./b.js";\nexport const a = 1;', b='import { a } from "./a.js";\nexport const b = 2;'
    )
    assert bundle.bundle(code, "a.js").count("const") == 2


BROKEN = {
    "declared in a.js too": modules(m='import { x } from "./a.js";\nconst x2 = 1;\nlet n = 1;', a="export let n = 2;"),
    "renames": modules(m='import { x as y } from "./a.js";', a="export const x = 1;"),
    "not there": modules(m='import { x } from "./gone.js";'),
    "relative": modules(m='import { x } from "https://cdn.example/x.js";'),
    "cannot be laid": modules(m="export default 3;"),
    "'export { x };' cannot": modules(m="const x = 1;\nexport { x };"),
    "'import.meta' cannot": modules(m="const here = import.meta.url;"),
}


@pytest.mark.parametrize("said", BROKEN)
def test_what_cannot_be_bundled_is_said(said):
    with pytest.raises(LayerscopeError, match=said):
        bundle.bundle(BROKEN[said], "m.js")


def test_the_page_of_this_package_can_be_bundled():
    page, _ = html.document(Record("features", "net"))
    found = Seen(page)
    asked = [attrs.get("src") or attrs.get("href") for tag, attrs in found.tags if tag in ("script", "link", "img")]
    assert not [address for address in asked if address and not address.startswith("data:")]
    assert any(attrs.get("type") == "module" for attrs, _ in found.scripts)


def test_a_page_without_the_place_for_its_code_is_said():
    with pytest.raises(LayerscopeError, match=r"web/index.html: has no <script.*main.js"):
        bundle.inline(WEB | {"index.html": WEB["index.html"].replace("main.js", "other.js")}, "", "")


@pytest.mark.skipif(not shutil.which("node"), reason="needs node to read the code")
def test_the_bundle_of_the_page_is_one_module(tmp_path):
    modules = {name: text for name, text in bundle.sources().items() if name.endswith(".js")}
    path = tmp_path / "page.mjs"
    path.write_text(bundle.bundle(modules, "main.js"))
    done = subprocess.run(["node", "--check", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_file_holds_index_blocks_and_pictures(web, record, tmp_path):
    path = html.write(record, tmp_path / "deep" / "a.html")
    found = Seen(path.read_text("utf-8"))
    index = json.loads(found.by_id("layerscope-index"))
    assert [layer["key"] for layer in index["layers"]] == list(record.entries)
    assert index["left_out"] == []
    for number, entry in enumerate(record.values()):
        text = found.by_id(f"block-{number}-0")
        block = gzip.decompress(base64.b64decode(text))
        assert np.array_equal(read(block)["codes"], entry.maps[0].codes)
        assert block in (viewer_format.block(entry, 0), viewer_format.predicted(viewer_format.block(entry, 0)))
    picture = index["pictures"][0]["src"]
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")) == viewer_format.picture_of(record, 0)


def test_nothing_is_asked_for_and_the_policy_allows_only_what_is_inside(web, record):
    page, _ = html.document(record)
    found = Seen(page)
    assert not [attrs for tag, attrs in found.tags if attrs.get("src") or attrs.get("href")]
    code = [text for attrs, text in found.scripts if attrs.get("type") == "module"]
    assert len(code) == 1
    assert "<\\/script>" in code[0]
    policy = next(attrs["content"] for tag, attrs in found.tags if tag == "meta" and "content" in attrs)
    digest = base64.b64encode(hashlib.sha256(code[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert page.index("layerscope-index") < page.index('type="module"')


EVIL = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>\u2028'\"&"


def evil() -> Record:
    maps = Maps(np.zeros(1, np.float32), np.ones(1, np.float32), (1, 2, 2), np.zeros((1, 2, 2), np.uint8))
    record = Record("features", EVIL, subject_b=EVIL, notes=[EVIL], never=[EVIL], foreign=[EVIL])
    record.provenance = {EVIL: EVIL}
    record.pictures = [Picture(EVIL, np.zeros((2, 2, 3), np.uint8))]
    record.predictions = [[Prediction(0, EVIL, 1.0)]]
    record.findings = [Finding(EVIL, EVIL, [0], EVIL)]
    record.add(Entry(Site(EVIL, 0, EVIL), EVIL, (1, 1, 2, 2), EVIL, maps=[maps], note=EVIL))
    return record


def test_no_name_becomes_markup(web):
    page, _ = html.document(evil())
    found = Seen(page)
    assert len(found.scripts) == 3  # index, block, code
    assert "img" not in {tag for tag, _ in found.tags}
    index = found.by_id("layerscope-index")
    assert not set("<>&") & set(index)  # `<!--<script` would hide the end of the script
    assert json.loads(index)["layers"][0]["path"] == EVIL
    assert found.title == f"{EVIL} vs {EVIL}"
    frame = Seen(notebook.frame(evil()))
    assert [tag for tag, _ in frame.tags] == ["iframe"]
    assert frame.tags[0][1]["srcdoc"] == page


def smooth(*shape: int) -> np.ndarray:
    """Waves, as maps of a network are, float32 (C, h, w)."""
    c, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    noise = np.random.default_rng(0).normal(size=shape) / 50
    return (np.sin((x + 3 * y) / (5 + c)) + np.cos(y * c / 40) + noise).astype(np.float32)


def pyramid(**more: np.ndarray) -> Record:
    """Layers whose maps become smaller with depth, as in every network of convolutions."""
    record = Record("features", "net")
    for path, maps in {"stem": smooth(16, 60, 60), "mid": smooth(16, 30, 31), "deep": smooth(90, 7, 7), **more}.items():
        record.add(entry_of(path, [maps]))
    record.add(entry_of("head", [smooth(10, 1, 1)], layout="NC"))
    return record


def shown(page: str) -> tuple[dict, dict[str, dict]]:
    """The index, and the block of the first image of each layer by key, as the page finds it."""
    found = Seen(page)
    index, blocks = json.loads(found.by_id("layerscope-index")), {}
    for layer in index["layers"]:
        id, image = layer["maps"][0].get("at", [layer["id"], 0]) if layer["maps"] else (layer["id"], 0)
        blocks[layer["key"]] = read(gzip.decompress(base64.b64decode(found.by_id(f"block-{id}-{image}"))))
    return index, blocks


def test_neighbours_make_smooth_maps_a_good_deal_smaller(web):
    record = pyramid()
    size = sum(len(text) for text in fitted(record, 10**9).texts.values())
    plain = sum(len(base64.b64encode(gzip.compress(viewer_format.block(entry, 0)))) for entry in record.values())
    assert size < 0.9 * plain
    assert {block["flags"] for block in shown(html.document(record)[0])[1].values()} == {0, 1}


def test_beyond_the_budget_the_largest_layers_are_reduced_and_none_is_dropped(web):
    record = pyramid()
    whole, fit = html.document(record)
    assert (fit.left_out, fit.reduced) == ([], {})
    budget = len(whole) - 10_000
    page, fit = html.document(record, budget)
    assert len(page) <= budget
    assert (fit.left_out, fit.reduced) == ([], {"stem": 2})
    index, blocks = shown(page)
    assert [layer["maps"][0]["reduced"] for layer in index["layers"]] == [2, 1, 1, 1]
    assert index["layers"][0]["maps"][0] == {"c": 16, "h": 30, "w": 30, "reduced": 2}
    assert [note for note in index["notes"] if "stem (1/2)" in note]
    truth = smooth(16, 60, 60).reshape(16, 30, 2, 30, 2).mean((2, 4))
    step = np.ptp(smooth(16, 60, 60), axis=(1, 2)) / 254
    lo, hi, codes = (blocks["stem"][name] for name in ("lo", "hi", "codes"))
    values = lo[:, None, None] + codes * ((hi - lo) / 254)[:, None, None]
    assert (np.abs(values - truth) <= step[:, None, None] * 1.001).all()
    assert np.array_equal(blocks["mid"]["codes"], record["mid"].maps[0].codes)
    assert record["stem"].maps[0].shape == (16, 60, 60), "the record itself stays as it was"


def test_what_cannot_be_reduced_is_dropped_at_the_very_last(web):
    record = pyramid()
    page, fit = html.document(record, 13_000)
    assert len(page) <= 13_000
    assert (fit.left_out, fit.reduced) == (["deep"], {"stem": 8, "mid": 4})
    index, blocks = shown(page)
    assert index["left_out"] == ["deep"]
    assert index["layers"][0]["maps"][0] == {"c": 16, "h": 8, "w": 8, "reduced": 8}
    layer = index["layers"][2]
    assert layer["maps"] == []
    assert layer["total"]["count"] > 0
    assert blocks["deep"]["shape"] == (90, 0, 0)
    assert np.array_equal(blocks["deep"]["mean"], record["deep"].columns.mean.astype(np.float32))
    _, fit = html.document(record, 1)
    assert fit.left_out == ["deep", "stem", "mid", "head"]
    assert fit.reduced == {}


def test_the_budget_is_kept_with_the_names_of_what_was_reduced(web):
    record = pyramid(**{f"a long name of a layer that has to be named {n}": smooth(20 + n, 28, 28) for n in range(9)})
    whole = len(html.document(record)[0])
    for budget in range(30_000, whole, 15_000):
        page, fit = html.document(record, budget)
        assert len(page) <= budget, (budget, fit.reduced, fit.left_out)


def test_kernels_are_never_averaged():
    record = Record("weights", "net.pth")
    for path, layout in (("first", "OI"), ("second", "OIHW"), ("third", "NCHW")):
        entry = entry_of(path, [smooth(4, 40, 40)])
        record.add(replace(entry, site=Site(path, 0, layout)))
    fit = fitted(record, 1000)
    assert fit.reduced == {}
    assert sorted(fit.left_out) == ["first", "second", "third"]
    assert fitted(record, 12_000).reduced.keys() <= {"third"}
    assert shrunk(record["first"].maps[0], 2).shape == (4, 20, 20), "they are large enough"


def test_layers_that_are_compared_keep_one_size():
    record = Record("compare", "a", subject_b="b")
    noise = np.random.default_rng(0).normal(size=(8, 40, 40)).astype(np.float32)  # takes far more than waves do
    for path, side, maps in (("x", "a", smooth(8, 40, 40)), ("x", "b", noise), ("y", "a", smooth(8, 20, 20))):
        record.add(entry_of(path, [maps], side=side))
    whole = sum(len(text) for text in fitted(record, 10**9).texts.values())
    for share in (0.8, 0.5, 0.3):
        fit = fitted(record, int(share * whole))
        assert fit.reduced["a:x"] == fit.reduced["b:x"]


def test_equal_blocks_are_there_once(web):
    record = pyramid(dropout=smooth(90, 7, 7))
    index, blocks = shown(html.document(record)[0])
    assert index["layers"][3]["maps"][0]["at"] == [2, 0]
    assert "at" not in index["layers"][2]["maps"][0]
    assert np.array_equal(blocks["dropout"]["codes"], record["dropout"].maps[0].codes)
    assert html.document(record)[0].count('<script type="text/plain"') == 4


def test_halving_keeps_what_is_not_finite_and_fills_up_odd_sides():
    codes = np.array([[[0, 1, 9], [2, 3, 11], [255, 0, 4]]], np.uint8)
    maps = shrunk(Maps(np.zeros(1, np.float32), np.ones(1, np.float32), (1, 3, 3), codes, 3), 2)
    assert maps.shape == (1, 2, 2)
    assert maps.reduced == 6
    assert maps.codes.tolist() == [[[2, 10], [255, 4]]]


def test_what_did_not_fit_is_said(web, tmp_path):
    said: list[str] = []
    html.write(pyramid(), tmp_path / "a.html", warn=said.append)
    assert said == []
    html.write(pyramid(), tmp_path / "a.html", 13_000, said.append)
    assert said == [
        "maps are left out to stay within 0.013 MB: deep; their statistics are inside; "
        "maps are reduced: stem (1/8), mid (1/4); give a larger budget or fewer layers"
    ]
    with pytest.raises(OutputError):
        html.write(pyramid(), tmp_path / "a.html" / "b.html")


def test_the_frame_is_the_file_and_is_kept_apart(web, record):
    frame = Seen(notebook.frame(record))
    tag, attrs = frame.tags[0]
    assert tag == "iframe"
    assert attrs["srcdoc"] == html.document(record)[0]
    assert "allow-same-origin" not in attrs["sandbox"]
    assert markup.unescape("&#39;") == "'"


def test_one_line_of_text(record, checkpoint):
    assert notebook.line(record) == "features of Small: 8 layers, 1 image"
    assert notebook.line(layerscope.compare(checkpoint, checkpoint)).endswith(": 11 tensors")
