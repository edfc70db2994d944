"""The site builds strictly, every link leads somewhere, and no page asks another host for anything."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow

#: what a browser loads by itself; `a` waits for a click
LOADED = {
    "audio": "src", "embed": "src", "iframe": "src", "image": "href", "img": "src", "input": "src", "link": "href",
    "object": "data", "script": "src", "source": "src", "track": "src", "use": "href", "video": "src",
}  # fmt: skip


class Page(HTMLParser):
    """Where a page leads, what it loads, and the names of its places."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.names: set[str] = set()
        self.styles: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.names |= {given[name] for name in ("id", "name") if name in given}
        self.styles += [given["style"]] if "style" in given else []
        if tag == "a" and "href" in given:
            self.leads.append(given["href"])
        if tag in LOADED and LOADED[tag] in given:
            self.loads.append(given[LOADED[tag]])
        self.loads += [part.split()[0] for part in given.get("srcset", "").split(",") if part.strip()]


def local(url: str) -> bool:
    return not urlsplit(url).scheme and not url.startswith("//")


def target(page: Path, url: str) -> Path:
    path = unquote(urlsplit(url).path)
    found = page if not path else (page.parent / path)
    return found / "index.html" if found.is_dir() else found


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs", reason="the site needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_page_of_the_documentation_is_there(site, pages):
    written = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site) for path in pages}
    assert written - {Path("index.html")} <= built
    assert {Path("index.html"), Path("changelog.html"), Path("zh/index.html"), Path("notices.html")} <= built


def test_every_link_and_image_leads_somewhere(site, pages):
    seen = 0
    for path, page in pages.items():
        if path.name == "404.html":  # its links begin at the root of whatever host it lies on
            continue
        for url in filter(local, page.leads + page.loads):
            found, place = target(path, url), unquote(urlsplit(url).fragment)
            assert found.is_file(), f"{path.relative_to(site)}: {url}"
            if place and found in pages:
                assert place in pages[found].names, f"{path.relative_to(site)}: {url}"
            seen += 1
    assert seen > 1000


def test_no_page_and_no_style_names_another_host(site, pages):
    for path, page in pages.items():
        for url in page.loads:
            assert local(url) or url.startswith("data:"), f"{path.relative_to(site)} loads {url}"
        for style in page.styles:
            assert "url(" not in style
    for sheet in site.rglob("*.css"):
        text = sheet.read_text("utf-8")
        assert "@import" not in text, sheet
        for url in re.findall(r"url\(\s*[\"']?([^)\"']+)", text):
            assert local(url) or url.startswith("data:"), f"{sheet.relative_to(site)} loads {url}"


def test_the_reference_names_the_public_interface(pages, site):
    import layerscope

    names = pages[site / "reference.html"].names
    for name in layerscope.__all__:
        assert name.startswith("__") or any(one.endswith(f".{name}") for one in names), name


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.browser
def test_a_browser_asks_no_other_host_and_sees_no_error(site):
    sync_api = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    asked: list[str] = []
    faults: list[str] = []
    with sync_api.sync_playwright() as player, served(site) as root:
        browser = player.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("response", lambda answer: answer.status < 400 or faults.append(f"{answer.status} {answer.url}"))
        for path in sorted(site.rglob("*.html")):
            if path.name != "404.html":
                page.goto(f"{root}/{path.relative_to(site)}", wait_until="load")
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= 400, f"{path.relative_to(site)} is {wide} wide: what is wide scrolls by itself"
        page.goto(f"{root}/index.html", wait_until="load")
        page.set_viewport_size({"width": 1300, "height": 900})
        page.get_by_role("textbox", name="Search").click()
        page.keyboard.type("receptive field", delay=20)
        page.locator(".md-search-result__item").first.wait_for()
        browser.close()
    assert len(asked) > 100
    assert [url for url in asked if not url.startswith((root, "data:", "blob:"))] == []
    assert faults == []
