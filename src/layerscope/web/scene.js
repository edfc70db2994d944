// From the state to what is drawn: which tiles, in which order, in which colours. Kept until something of it changes.

import { countWithin, difference } from "./block.js";
import { coloursOf, networkSpan } from "./ranges.js";
import { alike, profileNow, rowNow } from "./rows.js";
import { orderOf, planesOf, tilesOf } from "./tiles.js";

/** @type {{shown: Shown|null, a: Tiles|null, b: Tiles|null, diff: Tiles|null}} */
let kept = { shown: null, a: null, b: null, diff: null };

/** @param {Shown} shown */
function sides(shown) {
  if (kept.shown === shown) return kept;
  const { row, a, b } = shown;
  kept = {
    shown,
    a: a?.codes.length && row.a ? tilesOf(a, row.a) : null,
    b: b?.codes.length && row.b ? tilesOf(b, row.b) : null,
    diff: null,
  };
  return kept;
}

/** A minus B, made when it is first needed. @param {Shown} shown @returns {Tiles|null} */
function changeOf(shown) {
  const all = sides(shown);
  if (!all.diff && all.a && all.b && shown.row.a && alike(shown.row, shown.image)) {
    all.diff = tilesOf(difference(all.a.block, all.b.block), shown.row.a);
    all.diff.dead = new Set();
  }
  return all.diff;
}

/** @param {State} state @returns {Scene|null} null where the row has no picture */
export function sceneOf(state) {
  const { shown, index } = state;
  if (!shown || !index) return null;
  const { a, b } = sides(shown),
    first = a ?? b;
  if (!first) return null;
  const both = Boolean(a && b),
    same = both && alike(shown.row, shown.image),
    mode = !both ? "one" : same || state.mode === "side" ? state.mode : "side",
    needsChange = same && (mode === "diff" || state.sort === "change"),
    diff = needsChange ? changeOf(shown) : null,
    map = mapOf(state, first),
    span = networkSpan(indexNow(state)),
    panes = mode === "diff" && diff ? [diffPane(state, diff)] : sidePanes(state, a, b, same, diff, map, span);
  return { shown, panes, mode, a, b, diff, chosen: chosenOf(state, first), rgb: first.rgb };
}

/** The network, or where a tensor of it is looked at its tensors. @param {State} state @returns {Index} */
function indexNow(state) {
  const row = rowNow(state);
  return /** @type {Index} */ (row && state.tensors.includes(row) ? state.kernels : state.index);
}

/** @param {State} state @param {Tiles} tiles @returns {string} */
export function mapOf(state, tiles) {
  if (tiles.rgb) return "gray"; // each colour of an RGB tile is a gray step of its own
  return state.map || (tiles.layer.layout.includes("O") ? "diverging" : "viridis");
}

/**
 * @param {State} state @param {Tiles|null} a @param {Tiles|null} b @param {boolean} same @param {Tiles|null} diff
 * @param {string} map @param {Span} span
 * @returns {Pane[]}
 */
function sidePanes(state, a, b, same, diff, map, span) {
  const change = diff ? diff.block : null;
  const pane = (/** @type {string} */ side, /** @type {Tiles} */ tiles, /** @type {Tiles[]} */ all) => ({
    side, tiles, order: orderOf(same && a ? a : tiles, state.sort, change, profileNow(state)), colours: coloursOf(scopeOf(state, tiles), map, all, span),
  });
  /** @type {Pane[]} */
  const panes = [];
  // Of one size they share their colours and the order of A, or neither could be compared by eye.
  if (a) panes.push(pane("a", a, same && b ? [a, b] : [a]));
  if (b) panes.push(pane("b", b, same && a ? [a, b] : [b]));
  return panes;
}

/** One value has no range of its own: a vector is shown over all of it. @param {State} state @param {Tiles} tiles */
export function scopeOf(state, tiles) {
  return tiles.strip && state.range === "channel" ? "layer" : state.range;
}

/** @param {State} state @param {Tiles} diff @returns {Pane} */
function diffPane(state, diff) {
  // Not of single numbers: a counter of batches would leave every kernel white.
  const gaps = indexNow(state).pairs.map((pair) => (pair.shape_a?.length && pair.max_abs) || 0),
    most = gaps.reduce((high, gap) => Math.max(high, gap), 0),
    colours = coloursOf(scopeOf(state, diff), "diverging", [diff], most ? [-most, most] : [NaN, NaN]);
  return { side: "diff", tiles: diff, order: orderOf(diff, state.sort, diff.block), colours };
}

/** @param {State} state @param {Tiles} tiles */
function chosenOf(state, tiles) {
  const { brush } = state;
  if (!brush) return null;
  const chosen = new Set();
  for (let tile = 0; tile < tiles.count; tile++) {
    if (planesOf(tiles, tile).some((plane) => countWithin(tiles.block, plane, brush))) chosen.add(tile);
  }
  return chosen;
}

/** The tiles in the order of the sheet, those within the brush alone: what the arrow keys step through. @param {Scene} scene */
export function walkOf(scene) {
  const order = [...scene.panes[0].order];
  return scene.chosen ? order.filter((tile) => scene.chosen?.has(tile)) : order;
}
