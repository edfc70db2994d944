"""From a click on a layer to all of its channels on the screen, in headless Chromium, against pictures as PNG.

python benchmarks/bench_viewer.py [--clicks 25] [--chromium /usr/bin/chromium]

Each click goes to a layer that was never fetched. Time runs from the click to the first frame after the pixels were
handed over. The same layers, in turn with ours, as one PNG mosaic and as one `<img>` a channel, all in viridis. Made
before: their server only sends bytes. Made when asked: as each new range and colour map would need. Their page is
empty but for the picture, ours has all of its panes. Medians of wall time.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from layerscope.records.maps import colormap, columns_for, mosaic
from layerscope.records.record import Entry, Picture, Record

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.web.chromium import browser_of
from tests.web.making import entry_of
from tests.web.serving import Handler, serving

SHAPES = [(512, 28, 28), (2048, 7, 7), (64, 512, 512)]
BASELINE = b"""<!doctype html><title>pictures</title><div id="at"></div><script>
async function drawn(name, count, kind = "png") {
  const at = document.getElementById("at"), start = performance.now();
  const image = (_, n) => Object.assign(new Image(), { src: `/${kind}/${name}/${n}` });
  at.replaceChildren(...Array.from({ length: count }, image));
  await Promise.all([...at.children].map((image) => image.decode()));
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - start;
}
</script>"""
CLICK = """async (key) => {
  const stage = document.getElementById("stage");
  const start = performance.now();
  const seen = new Promise((done) => new MutationObserver((_, watch) => {
    if (!stage.dataset.drawn.startsWith(key + "|")) return;
    watch.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
  }).observe(stage, { attributes: true, attributeFilter: ["data-drawn"] }));
  document.querySelector(`[data-key="${key}"]`).click();
  return seen;
}"""
RECOLOUR = """async ([field, value]) => {
  const button = document.querySelector(`#choose-${field} [data-value="${value}"]`);
  const start = performance.now();
  button.click();
  const worked = performance.now() - start;
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return [worked, performance.now() - start];
}"""


def layer_of(path: str, shape: tuple[int, int, int], seed: int) -> Entry:
    """Blobs after a ReLU: smooth and mostly zero, like real maps, so that PNG packs them as it packs real ones."""
    random = np.random.default_rng(seed)
    channels, height, width = shape
    coarse = random.normal(size=(channels, -(-height // 4), -(-width // 4))).astype(np.float32)
    values = np.maximum(coarse.repeat(4, 1).repeat(4, 2)[:, :height, :width], 0)
    values += np.float32(0.1) * random.random(values.shape, np.float32)
    return entry_of(path, [values])


def png(pixels: np.ndarray) -> bytes:
    """Palette PNG in viridis."""
    image = Image.fromarray(pixels)
    image.putpalette(colormap("viridis", 256).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def sheet_of(entry: Entry) -> np.ndarray:
    """All channels of a layer on one sheet."""
    codes = entry.maps[0].codes
    return mosaic(codes, columns_for(*codes.shape), 1, 0)


class Pictures(Handler):
    """The baseline's addresses beside the page's."""

    packed: dict[str, list[bytes]]

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("/")
        if parts[0] == "baseline":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(BASELINE)))
            self.end_headers()
            self.wfile.write(BASELINE)
        elif parts[0] == "png":
            self.give(self.packed[parts[1]][int(parts[2])], "image/png")
        elif parts[0] == "made":  # as for a colour map or a range that nobody asked for before
            self.give(png(sheet_of(self.record[parts[1]])), "image/png")
        else:
            super().do_GET()


def measured(page: Any, base: Any, keys: list[str], packed: dict[str, list[bytes]]) -> dict[str, list[float]]:
    """Ours and the two baselines, in turn."""
    out: dict[str, list[float]] = {"canvas": [], "mosaic": [], "made": [], "img": []}
    for turn, key in enumerate(keys):
        out["canvas"].append(page.evaluate(CLICK, key))
        page.wait_for_timeout(250)  # neighbours are fetched ahead: let that end
        out["mosaic"].append(base.evaluate("([name, count]) => drawn(name, count)", [f"{key}-mosaic", 1]))
        out["made"].append(base.evaluate("(name) => drawn(name, 1, 'made')", key))
        if turn < 3 and f"{key}-tiles" in packed:
            tiles = len(packed[f"{key}-tiles"])
            out["img"].append(base.evaluate("([name, count]) => drawn(name, count)", [f"{key}-tiles", tiles]))
    return out


def recoloured(page: Any) -> dict[str, list[float]]:
    """Milliseconds of work, and until the frame, of another colour map or range."""
    steps = [("map", "gray"), ("map", "viridis"), ("range", "layer"), ("range", "network"), ("range", "channel")] * 3
    found = [page.evaluate(RECOLOUR, list(step)) for step in steps]
    return {"work": [one[0] for one in found], "frame": [one[1] for one in found]}


def timed(chromium: str, record: Record, keys: list[str], packed: dict[str, list[bytes]]) -> dict[str, list[float]]:
    """Milliseconds of every kind."""
    handler = type("Bench", (Pictures,), {"packed": packed})
    with serving(record, handler=handler) as (url, _), browser_of(chromium) as browser:
        page, base = (browser.new_page(viewport={"width": 1280, "height": 720}) for _ in range(2))
        base.goto(url + "baseline")
        page.goto(url)
        page.locator("#busy").wait_for(state="hidden")
        time.sleep(0.5)
        return measured(page, base, keys, packed) | recoloured(page)


def prepared(shape: tuple[int, int, int], clicks: int) -> tuple[Record, list[str], dict[str, list[bytes]]]:
    """A record in which the layers that will be clicked are not next to each other."""
    record = Record("features", "bench")
    record.pictures = [Picture("noise", np.zeros((64, 64, 3), np.uint8))]
    packed: dict[str, list[bytes]] = {}
    record.add(layer_of("first", (8, 8, 8), 0))
    keys = []
    for number in range(clicks):
        entry = layer_of(f"layer{number}", shape, number)
        record.add(entry)
        keys.append(entry.key)
        for pad in range(3):
            record.add(layer_of(f"pad{number}.{pad}", (8, 8, 8), pad))
        packed[f"{entry.key}-mosaic"] = [png(sheet_of(entry))]
        if number < 3:
            packed[f"{entry.key}-tiles"] = [png(one) for one in entry.maps[0].codes]
    return record, keys, packed


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=25)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    head = ["layer", "one canvas, ms", "recolour, ms (until the frame)", "PNG mosaic made before, ms"]
    print(f"| {' | '.join([*head, 'made when asked, ms', 'one img a channel, ms'])} |\n|{' --- |' * 6}")
    for shape in SHAPES:
        clicks = options.clicks if shape[1] < 100 else max(3, options.clicks // 5)
        record, keys, packed = prepared(shape, clicks)
        found = timed(options.chromium, record, keys, packed)
        middle = {name: statistics.median(values) for name, values in found.items() if values}
        ours = middle["canvas"]
        ratios = [f"{middle[name]:.0f} ({middle[name] / ours:.1f} x)" for name in ("mosaic", "made", "img")]
        size = " x ".join(map(str, shape))
        print(f"| {size} | {ours:.0f} | {middle['work']:.1f} ({middle['frame']:.0f}) | {' | '.join(ratios)} |")


if __name__ == "__main__":
    main()
