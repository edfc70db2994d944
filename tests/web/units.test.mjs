// node --test tests/web: the parts of the page that need no browser.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

// The page's code as it was written, or a folder with what is given out.
const GIVEN = process.env.LAYERSCOPE_WEB;
const WEB = new URL(GIVEN ?? "../../src/layerscope/web/", import.meta.url);
const load = (name) => import(new URL(name, WEB).href);
const { binned, countWithin, countsOf, difference, mipOf, parseBlock, peakOf, spanOf, valueAt } = await load("block.js");
const { sceneOf } = await load("scene.js");
const { around, colourTable, hatch, stepsOf } = await load("colour.js");
const { formatHash, HOME, linkOf, parseHash } = await load("hash.js");
const { dims, num, percent, shortName } = await load("dom.js");
const { halve, sampleLine, taps } = await load("resample.js");
const { alike, matching, rowsOf, treeOf } = await load("rows.js");
const { coloursOf, networkSpan } = await load("ranges.js");
const { Store } = await load("store.js");
const { Loader } = await load("loader.js");
const { fitGrid, hitGrid, orderOf, placeOf, tilesOf } = await load("tiles.js");
const { paintTiles } = await load("paint.js");
const { contributions } = await load("unit.js");

const LAYOUT = { header_bytes: 16, arrays: [..."lo hi mean std min max".split(" ").map((name) => [name, "f4"]), ..."zeros nan inf".split(" ").map((name) => [name, "u4"])] };
const parsed = (buffer) => parseBlock(buffer, LAYOUT);

/** A block as the server writes it. Ranges per channel, codes (C, h, w). */
function packed(C, h, w, ranges, codes) {
  const buffer = new ArrayBuffer(16 + 36 * C + C * h * w);
  new Uint32Array(buffer, 0, 4).set([C, h, w, 0]);
  ranges.forEach(([lo, hi], c) => {
    [lo, hi, (lo + hi) / 2, (hi - lo) / 4, lo, hi].forEach((value, n) => (new Float32Array(buffer, 16 + 4 * C * n, C)[c] = value));
  });
  new Uint8Array(buffer, 16 + 36 * C).set(codes);
  return buffer;
}

const layer = (over = {}) => ({
  id: 0, key: "a.conv", path: "a.conv", call: 0, side: "", type: "Conv2d", shape: [1, 2, 2, 2], layout: "NCHW", dtype: "float32", note: "",
  dead: [], channels: 2, maps: [{ c: 2, h: 2, w: 2, reduced: 1 }], total: { min: -3, max: 5 }, histogram: null, ...over,
});
const TWO = () => parsed(packed(2, 2, 2, [[0, 254], [-1, 1]], [0, 10, 254, 255, 127, 0, 254, 127]));

test("a block gives back its values, and NaN for what was not finite", () => {
  const block = TWO();
  assert.deepEqual([0, 1].map((x) => valueAt(block, 0, 0, x)), [0, 10]);
  assert.ok(Number.isNaN(valueAt(block, 0, 1, 1)));
  assert.equal(valueAt(block, 1, 0, 0), 0);
  assert.deepEqual(peakOf(block, 1), [1, 0]);
  assert.deepEqual(spanOf(block), [-1, 254]);
});

test("a block that is cut off, or lies about its size, is refused", () => {
  const whole = packed(2, 2, 2, [[0, 1], [0, 1]], [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.throws(() => parsed(whole.slice(0, whole.byteLength - 1)), /cut off/);
  assert.throws(() => parsed(new ArrayBuffer(8)), /cut off/);
  const liar = whole.slice(0);
  new Uint32Array(liar, 0, 1)[0] = 0xffffffff;
  assert.throws(() => parsed(liar), /cut off/);
  for (const [field, value] of [[0, 1], [1, 1], [2, 0]]) {
    const smaller = whole.slice(0);
    new Uint32Array(smaller, 0, 4)[field] = value;
    assert.throws(() => parsed(smaller), /damaged/);
  }
});

/** Codes of one plane less what their neighbours let expect, by the words of docs/viewer.md. */
function differences(h, w, codes) {
  return codes.map((code, i) => {
    const [left, upper] = [i % w ? codes[i - 1] : null, i >= w ? codes[i - w] : null];
    const expected = left !== null && upper !== null ? Math.floor((left + upper) / 2) : (left ?? upper ?? 0);
    return (code - expected + 256) % 256;
  });
}

test("codes that were packed as differences come back, once", () => {
  for (const [h, w] of [[1, 1], [1, 6], [6, 1], [5, 7]]) {
    const plane = (seed) => Array.from({ length: h * w }, (_, i) => [0, 255, 254, 3, 128][(i * seed + (i >> 1)) % 5]);
    const codes = [plane(3), plane(7)];
    const buffer = packed(2, h, w, [[0, 1], [-1, 1]], codes.flatMap((one) => differences(h, w, one)));
    new Uint32Array(buffer, 12, 1)[0] = 1;
    for (const again of [false, true]) assert.deepEqual([...parsed(buffer).codes], codes.flat(), String(again));
  }
});

test("a block that a newer layerscope packed says so", () => {
  const buffer = packed(1, 1, 1, [[0, 1]], [7]);
  new Uint32Array(buffer, 12, 1)[0] = 2;
  assert.throws(() => parsed(buffer), /newer layerscope/);
});

test("A minus B is the difference of the values, to the steps of the three codes", () => {
  const a = TWO();
  const b = parsed(packed(2, 2, 2, [[0, 127], [-2, 2]], [0, 20, 254, 3, 127, 127, 127, 127]));
  const gap = difference(a, b);
  for (const [c, y, x] of [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 1], [1, 1, 0]]) {
    const step = (gap.hi[c] - gap.lo[c]) / 254;
    assert.ok(Math.abs(valueAt(gap, c, y, x) - (valueAt(a, c, y, x) - valueAt(b, c, y, x))) <= step / 2 + 1e-6);
  }
  assert.ok(Number.isNaN(valueAt(gap, 0, 1, 1)));
  assert.equal(gap.stats.nan[0], 1);
  assert.ok(Number.isNaN(gap.stats.zeros[0]), "what does not follow from the codes");
});

test("histograms count every finite value once", () => {
  const block = TWO();
  assert.equal(countsOf(block)[255], 1);
  const bins = binned(block, [0, 1], spanOf(block), 10);
  assert.equal(bins.reduce((p, q) => p + q), 7);
  assert.equal(bins[9], 1);
  assert.equal(countWithin(block, 0, [5, 300]), 2);
  assert.equal(countWithin(block, 1, [2, 3]), 0);
});

test("colours are those of layerscope.maps", () => {
  const rgb = (value) => [value & 255, (value >> 8) & 255, (value >> 16) & 255];
  assert.deepEqual(rgb(colourTable("viridis")[0]), [0x44, 0x01, 0x54]);
  assert.deepEqual(rgb(colourTable("viridis")[255]), [0xfd, 0xe7, 0x25]);
  assert.deepEqual(rgb(colourTable("gray")[100]), [100, 100, 100]);
  const [r, g, b] = rgb(colourTable("diverging")[127]);
  assert.ok(r > 240 && g > 240 && b > 240);
  assert.notEqual(hatch(0, 0), hatch(4, 0));
});

test("steps follow the range that is shown, and are cut off at its ends", () => {
  const steps = new Uint8Array(256);
  stepsOf(steps, 0, 254, 0, 254);
  assert.deepEqual([steps[0], steps[127], steps[254]], [0, 128, 255]);
  stepsOf(steps, 0, 254, 100, 110);
  assert.deepEqual([steps[50], steps[100], steps[105], steps[200]], [0, 0, 128, 255]);
  stepsOf(steps, 3, 3, 3, 3);
  assert.deepEqual([steps[0], steps[254]], [0, 0]);
  assert.deepEqual(around([-1, 3]), [-3, 3]);
  assert.deepEqual(around([0, 0]), [-1, 1]);
});

test("ranges of channel, layer and network", () => {
  const tiles = tilesOf(TWO(), layer());
  const network = networkSpan({ layers: [layer(), layer({ total: { min: -9, max: 1 } }), layer({ total: null })] });
  assert.deepEqual(network, [-9, 5]);
  assert.deepEqual(coloursOf("channel", "gray", [tiles], network).bounds(1), [-1, 1]);
  assert.deepEqual(coloursOf("layer", "gray", [tiles], network).bounds(1), [-1, 254]);
  assert.deepEqual(coloursOf("network", "gray", [tiles], network).bounds(1), [-9, 5]);
  assert.deepEqual(coloursOf("network", "diverging", [tiles], network).bounds(0), [-9, 9]);
});

test("halving keeps means, and any value that is not finite", () => {
  assert.deepEqual([...halve(Uint8Array.of(0, 4, 8, 12), 1, 2, 2).codes], [6]);
  assert.deepEqual([...halve(Uint8Array.of(0, 4, 255), 1, 1, 3).codes], [2, 255]);
  const { codes, h, w } = mipOf(parsed(packed(1, 5, 3, [[0, 1]], new Array(15).fill(7))), 2);
  assert.deepEqual([h, w, codes.length, codes[0]], [2, 1, 2, 7]);
});

test("enlarging repeats values, reducing mixes neighbours", () => {
  assert.deepEqual([...taps(2, 4).first], [0, 0, 1, 1]);
  const line = new Uint8Array(2);
  sampleLine(line, Uint8Array.of(0, 100, 200), 0, 0, 0, taps(3, 2), 0, 2);
  assert.deepEqual([...line], [25, 175]);
  sampleLine(line, Uint8Array.of(0, 255, 200), 0, 0, 0, taps(3, 2), 0, 2);
  assert.deepEqual([...line], [255, 255]);
});

test("every pixel of a tile has the colour of its value; the rest is left alone", () => {
  const tiles = tilesOf(TWO(), layer());
  const grid = { columns: 2, rows: 1, tileW: 4, tileH: 4, stepX: 5, stepY: 5, head: 0, left: 0, width: 9, height: 4 };
  const pixels = new Uint32Array(10 * 6);
  const colours = coloursOf("channel", "gray", [tiles], [NaN, NaN]);
  paintTiles({ pixels, width: 10, height: 6, left: 0, right: 10 }, tiles, Int32Array.of(1, 0), grid, { zoom: 1, x: 0, y: 0 }, 1, colours);
  const at = (x, y) => pixels[y * 10 + x];
  assert.equal(at(0, 0) & 255, 128); // channel 1, value 0 of -1..1
  assert.equal(at(3, 1) & 255, 0);
  assert.equal(at(1, 3) & 255, 255);
  assert.equal(at(4, 0), 0);
  assert.equal(at(5, 0) & 255, 0); // channel 0 lies second
  assert.equal(at(6, 3) & 255, 255);
  assert.equal(at(8, 3), hatch(8, 3));
  assert.equal(at(0, 5), 0);
});

test("tiles fit into the window, and the pointer finds them where they are", () => {
  for (const [C, h, w] of [[1, 30, 40], [7, 1, 1], [64, 56, 56], [512, 28, 28], [2048, 7, 7], [1000, 1, 1], [3, 200, 9]]) {
    const tiles = tilesOf({ ...TWO(), C, h, w }, layer());
    const grid = fitGrid(tiles, 690, 420);
    assert.ok(grid.width <= 691 && grid.height <= 421, `${[C, h, w]} is ${grid.width} x ${grid.height}`);
    for (const slot of [0, C >> 1, C - 1]) {
      const [x, y] = placeOf(grid, slot);
      const hit = hitGrid(grid, tiles, x + grid.tileW * 0.999, y + grid.tileH * 0.001);
      assert.deepEqual(hit, { slot, y: 0, x: w - 1 });
    }
    assert.equal(hitGrid(grid, tiles, -1, 0), null);
  }
});

test("tiles are sorted by deviation, maximum, death and change", () => {
  const block = parsed(packed(3, 1, 2, [[0, 1], [0, 9], [-5, 4]], [0, 254, 0, 254, 0, 254]));
  const tiles = tilesOf(block, layer({ dead: [1] }));
  assert.deepEqual([...orderOf(tiles, "index", null)], [0, 1, 2]);
  assert.deepEqual([...orderOf(tiles, "max", null)], [1, 2, 0]);
  assert.deepEqual([...orderOf(tiles, "dead", null)], [1, 0, 2]);
  assert.deepEqual([...orderOf(tiles, "change", { ...block, stats: { mean: Float32Array.of(1, NaN, 3) } })], [2, 0, 1]);
  assert.deepEqual([...orderOf(tiles, "std", null)], [1, 2, 0]);
});

test("kernels with three inputs are RGB, others keep their rows, dead kernels are found", () => {
  const rgb = tilesOf({ ...TWO(), C: 6 }, layer({ layout: "OIHW", shape: [2, 3, 2, 2], dead: [1] }));
  assert.deepEqual([rgb.rgb, rgb.count, [...rgb.dead]], [true, 2, [1]]);
  const rows = tilesOf({ ...TWO(), C: 8 }, layer({ layout: "OIHW", shape: [2, 4, 2, 2], dead: [1] }));
  assert.deepEqual([rows.columns, [...rows.dead]], [4, [4, 5, 6, 7]]);
});

test("deep links survive, and what makes no sense is left out", () => {
  const link = { ...HOME, layer: "layer1.0.relu:1", channel: 37, y: 12, x: 9, range: "network", map: "gray", sort: "change", mode: "diff", image: 2 };
  assert.deepEqual(parseHash(formatHash(link)), link);
  assert.equal(formatHash(HOME), "");
  assert.deepEqual(parseHash("#channel=-4&y=1e9&range=%3Cscript%3E&sort=%3C&image=x"), HOME);
  assert.deepEqual(linkOf({ ...link, index: null, rows: [] }), link);
});

test("the store tells those who listen to what changed, once", () => {
  const store = new Store({ a: 1, b: 2, c: NaN });
  const heard = [];
  const stop = store.on("a b", (state) => heard.push([state.a, state.b]));
  store.set({ a: 3, b: 4 });
  store.set({ c: NaN, a: 3 });
  stop();
  store.set({ a: 9 });
  assert.deepEqual(heard, [[3, 4]]);
});

const compared = (layers, more = {}) => ({ compares: true, entry: "layer", layers, pairs: [], stages: [], ...more });
const sided = (side, path, shape, type = "Conv2d") => layer({ key: `${side}:${path}`, path, side, shape, type, maps: [{ c: shape[1], h: shape[2], w: shape[3], reduced: 1 }] });

test("layers of two networks are matched by name, then by shape; the rest is alone", () => {
  const rows = rowsOf(compared([
    sided("a", "conv1", [1, 4, 8, 8]), sided("a", "mid", [1, 2, 4, 4]), sided("a", "only", [1, 3, 2, 2]),
    sided("b", "conv1", [1, 4, 8, 8]), sided("b", "other", [1, 2, 4, 4]), sided("b", "last", [1, 9, 1, 1]),
  ], { stages: [["mid", "other"], ["conv1", "conv1"]] }));
  assert.deepEqual(rows.map((row) => [row.key, row.how]), [
    ["stage: mid ~ other", "stage"], ["conv1", "name"], ["mid ~ other", "shape"], ["a:only", ""], ["b:last", ""],
  ]);
  assert.ok(alike(rows.find((row) => row.key === "conv1"), 0));
  assert.ok(!alike(rows.find((row) => row.key === "a:only"), 0));
});

test("rows have keys that no other row has", () => {
  const layers = ["a", "b"].flatMap((side) => [sided(side, side === "a" ? "p" : "q", [1, 2, 4, 4]), sided(side, "same", [1, 2, 4, 4])]);
  const keys = rowsOf(compared(layers, { stages: [["p", "q"]] })).map((row) => row.key);
  assert.equal(new Set(keys).size, keys.length);
});

test("the filter takes words, globs and dead", () => {
  const rows = rowsOf({ layers: [layer(), layer({ key: "b.relu:1", path: "b.relu", call: 1, type: "ReLU", dead: [3] })] });
  const found = (text) => matching(rows, text).map((row) => row.key);
  assert.deepEqual(found("conv"), ["a.conv"]);
  assert.deepEqual(found("RELU b"), ["b.relu:1"]);
  assert.deepEqual(found("a.*"), ["a.conv"]);
  assert.deepEqual(found("dead"), ["b.relu:1"]);
  assert.deepEqual(found("("), []);
});

test("the tree joins what holds one thing alone, and hides what is closed", () => {
  const paths = ["stem.conv", "body.0.conv", "body.0.relu", "body.1.conv"];
  const rows = rowsOf({ layers: paths.map((path, id) => layer({ id, key: path, path })) });
  const lines = (closed) => treeOf(rows, new Set(closed)).map((item) => `${" ".repeat(item.depth)}${item.label}${item.row ? "" : "/"}`);
  assert.deepEqual(lines([]), ["stem.conv", "body/", " 0/", "  conv", "  relu", " 1.conv"]);
  assert.deepEqual(lines(["body"]), ["stem.conv", "body/"]);
});

test("numbers and shapes as people write them", () => {
  const said = [0, 1.23456, -0.00001234, 123456789, NaN, null, Infinity].map((value) => num(value));
  assert.deepEqual(said, ["0", "1.235", "−1.23e-5", "1.23e8", "–", "–", "∞"]);
  assert.equal(num(-2), "−2");
  assert.equal(dims([1, 64, 7, 7], "NCHW"), "64 × 7 × 7");
  assert.equal(dims([64, 3, 7, 7], "OIHW"), "64 × 3 × 7 × 7");
  assert.equal(percent(0.0004), "0.040%");
  assert.equal(shortName("torchvision:resnet18=nets/x/ra.pth"), "torchvision:resnet18 = ra.pth");
});

test("contributions of inputs, the largest first, add up to the sum without the bias", () => {
  const sum = { inputs: [4, 5], patch: [[[1, 2]], [[3, 4]]], kernel: [[[1, 0]], [[-1, 2]]], products: [[[1, 0]], [[-3, 8]]] };
  const rows = contributions(sum);
  assert.deepEqual(rows.map((row) => [row.name, row.total]), [["5", 5], ["4", 1]]);
  assert.deepEqual(contributions({ inputs: [], patch: [1, 2], kernel: [3, 4], products: [3, 8] }).map((row) => row.total), [11]);
});

test("blocks are fetched once, kept within the budget, and asked for again after a failure", async () => {
  let asked = 0;
  let broken = true;
  const source = { layout: LAYOUT, block: async () => (asked++, broken ? Promise.reject(new Error("gone")) : packed(2, 2, 2, [[0, 1], [0, 1]], new Array(8).fill(0))) };
  const loader = new Loader(source, 100);
  await assert.rejects(loader.get(layer(), 0), /gone/);
  broken = false;
  await loader.get(layer(), 0);
  await loader.get(layer(), 0);
  assert.equal(asked, 2);
  for (const id of [1, 2, 3]) await loader.get(layer({ id }), 0);
  assert.ok(loader.kept.size <= 2);
  assert.equal(await loader.get(layer({ maps: [] }), 0), null);
});

test("a block that stands for several layers is fetched and kept once", async () => {
  const asked = [];
  const source = { layout: LAYOUT, block: async ({ id }, image) => (asked.push([id, image]), packed(2, 2, 2, [[0, 1], [0, 1]], new Array(8).fill(id))) };
  const loader = new Loader(source, 1000);
  const map = { c: 2, h: 2, w: 2, reduced: 1 };
  const twin = layer({ id: 5, maps: [map, { ...map, at: [3, 1] }] });
  const [own, same] = [await loader.get(layer({ id: 3, maps: [map, map] }), 1), await loader.get(twin, 1)];
  assert.equal(own, same);
  await loader.get(twin, 0);
  assert.deepEqual(asked, [[3, 1], [5, 0]]);
});

test("what is wrong with a block is said in words, and it is asked for again", async () => {
  const answers = [
    [() => atob("%"), /the data of a\.conv is damaged or cut off/],
    [() => Promise.reject(new TypeError("Compressed input was truncated.")), /the data of a\.conv is damaged or cut off/],
    [() => Promise.reject(new Error("the server does not answer")), /the server does not answer/],
    [() => packed(2, 4, 1, [[0, 1], [0, 1]], new Array(8).fill(0)), /a\.conv does not have the size that was announced/],
  ];
  const loader = new Loader({ layout: LAYOUT, block: async () => answers[0][0]() });
  for (; answers.length; answers.shift()) await assert.rejects(loader.get(layer(), 0), answers[0][1]);
});

const whatWasWritten = { skip: GIVEN ? "without indentation every name looks like one of the top level" : false };
test("modules can be laid end to end: no name twice, no default export, nothing renamed", whatWasWritten, () => {
  const names = new Map();
  for (const file of readdirSync(WEB).filter((name) => name.endsWith(".js"))) {
    const text = readFileSync(new URL(file, WEB), "utf8");
    assert.doesNotMatch(text, /^export (default|\*|\{)/m, file);
    assert.doesNotMatch(text, /^import .* as |import\(|^await /m, file);
    for (const [, name] of text.matchAll(/^(?:export )?(?:async )?(?:function|const|let|class) (\w+)/gm)) {
      assert.ok(!names.has(name), `${name} is in ${file} and in ${names.get(name)}`);
      names.set(name, file);
    }
  }
});

test("a counter does not stretch the range of A - B", () => {
  const side = (name) => ({ id: 0, key: "a", path: "a", call: 0, side: name, type: "kernel", shape: [2, 1, 2, 2], layout: "OIHW",
    dtype: "float32", note: "", dead: [], channels: 2, maps: [{ c: 2, h: 2, w: 2, reduced: 1 }], total: { min: -3, max: 5 }, histogram: null });
  const pair = (name, shape, gap) => ({ name, shape_a: shape, shape_b: shape, status: "changed", max_abs: gap, mean_abs: gap, cosine: 1 });
  const block = (codes) => parsed(packed(2, 2, 2, [[0, 1], [-1, 1]], codes));
  const kernel = pair("a", [2, 1, 2, 2], 0.3),
    row = { key: "a", path: "a", a: side("a"), b: side("b"), pair: kernel, how: "name" },
    shown = { id: "x", row, image: 0, a: block([0, 10, 254, 254, 127, 0, 254, 127]), b: block([5, 10, 200, 254, 127, 0, 254, 100]) };
  const index = { compares: true, pairs: [kernel, pair("counter", [], 1000)], layers: [row.a, row.b], pictures: [], stages: [], findings: [], notes: [], live: null };
  const state = { index, rows: [row], tensors: [], layer: "a", shown, range: "network", map: "", sort: "index", mode: "diff", brush: null,
    profile: null, image: 0, channel: -1, query: "" };
  assert.deepEqual(sceneOf(state).panes[0].colours.bounds(0), [-0.3, 0.3]);
});
