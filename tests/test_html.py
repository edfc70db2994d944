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
from html.parser import HTMLParser

import numpy as np
import pytest

import layerscope
from layerscope.errors import LayerscopeError, OutputError
from layerscope.maps import Maps
from layerscope.record import Entry, Finding, Picture, Prediction, Record
from layerscope.sites import Site
from layerscope.views import bundle, html, notebook, wire

WEB = {
    "index.html": b'<!doctype html><html><head><meta charset="utf-8"><title>x</title>'
    b'<link rel="icon" href="web/icon.svg"><link rel="stylesheet" href="/web/style.css">'
    b'<script type="module" src="/web/main.js"></script></head><body><main></main></body></html>',
    "style.css": b"body { color: red }",
    "main.js": b'import { a } from "./part/a.js";\nimport {\n  b,\n} from "./b.js";\nconsole.log(a, b, "</script>");\n',
    "part/a.js": b'import { b } from "../b.js";\nexport const a = b + 1;\n',
    "b.js": b"export function one() { return 1; }\nexport async function two() {}\nconst b = 1;\nexport { b };\n",
    "icon.svg": b"<svg/>",
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
    monkeypatch.setattr(html, "web_files", lambda: WEB)


@pytest.fixture
def record(small, photo):
    return layerscope.features(small, photo)


def modules(**texts: str) -> dict[str, str]:
    return {f"{name}.js": text for name, text in texts.items()}


def test_modules_are_laid_end_to_end_imports_first():
    code = {name: text.decode() for name, text in WEB.items() if name.endswith(".js")}
    text = bundle.bundle(code, "main.js")
    assert [line for line in text.splitlines() if line.endswith(".js")] == ["// b.js", "// part/a.js", "// main.js"]
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
    "'import.meta' cannot": modules(m="const here = import.meta.url;"),
}


@pytest.mark.parametrize("said", BROKEN)
def test_what_cannot_be_bundled_is_said(said):
    with pytest.raises(LayerscopeError, match=said):
        bundle.bundle(BROKEN[said], "m.js")


def test_the_page_of_this_package_can_be_bundled():
    files = bundle.web_files()
    page, _ = html.document(Record("features", "net"))
    found = Seen(page)
    asked = [attrs.get("src") or attrs.get("href") for tag, attrs in found.tags if tag in ("script", "link", "img")]
    assert not [address for address in asked if address and not address.startswith("data:")]
    if b"<script" in files["index.html"]:
        assert any(attrs.get("type") == "module" for attrs, _ in found.scripts)


@pytest.mark.skipif(not shutil.which("node"), reason="needs node to read the code")
def test_the_bundle_of_the_page_is_one_module(tmp_path):
    modules = {name: data.decode() for name, data in bundle.web_files().items() if name.endswith(".js")}
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
    for number, entry in enumerate(record):
        text = found.by_id(f"block-{number}-0")
        assert gzip.decompress(base64.b64decode(text)) == wire.block(entry, 0)
    picture = index["pictures"][0]["src"]
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")) == wire.png(record, 0)


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


def test_the_budget_takes_the_maps_of_the_largest_layers(web, record):
    whole, none = html.document(record)
    assert none == []
    budget = len(whole) // 2
    page, left_out = html.document(record, budget)
    assert len(page) < budget + 2000
    assert left_out
    index = json.loads(Seen(page).by_id("layerscope-index"))
    assert set(index["left_out"]) == set(left_out)
    sizes = {entry.key: len(base64.b64encode(gzip.compress(wire.block(entry, 0), 6))) for entry in record}
    assert min(sizes[key] for key in left_out) >= max(size for key, size in sizes.items() if key not in left_out)
    layer = next(layer for layer in index["layers"] if layer["key"] == left_out[0])
    assert layer["maps"] == []
    assert layer["total"]["count"] > 0
    block = gzip.decompress(base64.b64decode(Seen(page).by_id(f"block-{layer['id']}-0")))
    assert block == wire.block(record[left_out[0]], 0, maps=False)


def test_what_was_left_out_is_said(web, record, tmp_path):
    said: list[str] = []
    html.write(record, tmp_path / "a.html", warn=said.append)
    assert said == []
    html.write(record, tmp_path / "a.html", 50_000, said.append)
    assert "0.05 MB" in said[0]
    with pytest.raises(OutputError):
        html.write(record, tmp_path / "a.html" / "b.html")


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
