// What the two ends of the colours stand for: the range of a channel, of the layer, or of the whole network.

import { spanOf } from "./block.js";
import { around, colourTable, stepsOf } from "./colour.js";
import { planesOf } from "./tiles.js";

/** @param {Span} a @param {Span} b @returns {Span} both; NaN counts for nothing */
export function joined(a, b) {
  const lows = [a[0], b[0]].filter((value) => !Number.isNaN(value)),
    highs = [a[1], b[1]].filter((value) => !Number.isNaN(value));
  return lows.length ? [Math.min(...lows), Math.max(...highs)] : [NaN, NaN];
}

/** @param {Index} index @returns {Span} of every layer of the network, or every tensor */
export function networkSpan(index) {
  /** @type {Span} */
  let span = [NaN, NaN];
  for (const { total, maps } of index.layers) {
    // Running variances and other tensors without a picture would stretch the range and are never drawn over it.
    if (total && maps.length && total.min != null && total.max != null) span = joined(span, [total.min, total.max]);
  }
  return span;
}

/**
 * @param {string} scope channel, layer or network
 * @param {string} map
 * @param {Tiles[]} all one, or the two sides of a comparison that share their colours
 * @param {Span} network
 * @returns {Colours}
 */
export function coloursOf(scope, map, all, network) {
  const shaped = (/** @type {Span} */ span) => (map === "diverging" ? around(span) : span),
    table = colourTable(map);
  if (scope === "channel") return { map, table, bounds: (tile) => shaped(channelSpan(all, tile)) };
  const own = all.map((tiles) => spanOf(tiles.block)).reduce(joined),
    span = shaped(scope === "network" && !Number.isNaN(network[0]) ? network : own);
  return { map, table, bounds: () => span };
}

/** @param {Tiles[]} all @param {number} tile @returns {Span} */
export function channelSpan(all, tile) {
  /** @type {Span} */
  let span = [NaN, NaN];
  for (const tiles of all) {
    if (tile >= tiles.count) continue;
    for (const c of planesOf(tiles, tile)) span = joined(span, [tiles.block.lo[c], tiles.block.hi[c]]);
  }
  return span;
}

const scratch = new Uint8Array(256);

/**
 * The colour of each code of one plane.
 * @param {Uint32Array} lut receives 255 colours
 * @param {Tiles} tiles @param {number} plane @param {Span} bounds @param {Uint32Array} table
 */
export function fillLut(lut, tiles, plane, bounds, table) {
  stepsOf(scratch, tiles.block.lo[plane], tiles.block.hi[plane], bounds[0], bounds[1]);
  for (let code = 0; code < 255; code++) lut[code] = table[scratch[code]];
}

/** The same for one of the three planes of an RGB tile: steps 0 to 255. @param {Uint8Array} steps @param {Tiles} tiles @param {number} plane @param {Span} bounds */
export function fillSteps(steps, tiles, plane, bounds) {
  stepsOf(steps, tiles.block.lo[plane], tiles.block.hi[plane], bounds[0], bounds[1]);
}
