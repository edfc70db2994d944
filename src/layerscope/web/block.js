// One layer on one image as it travels: 8-bit codes and the float range of each channel, and what follows from them.

import { halve } from "./resample.js";

export const NONFINITE = 255;
/** The arrays of a block by the name of their type. */
export const TYPES = { f4: Float32Array, i4: Int32Array, u4: Uint32Array };
// More than any record has; a header that lies about its size must not make the page reserve memory for it.
const MOST_PLANES = 1 << 22;
/** Flag: the codes are differences from what their neighbours let expect. */
const PREDICTED = 1;
const DAMAGED = "the data of this layer is damaged or cut off";

/** @param {ArrayBuffer} buffer is kept, and its codes are brought into the plain form @param {Layout} layout of the index @returns {Block} */
export function parseBlock(buffer, { header_bytes: start, arrays }) {
  if (buffer.byteLength < start) throw new Error(DAMAGED);
  const head = new Uint32Array(buffer, 0, 4),
    [C, h, w, flags] = head,
    codesAt = start + 4 * arrays.length * C;
  if (C > MOST_PLANES || buffer.byteLength !== codesAt + C * h * w) throw new Error(DAMAGED);
  if (flags > PREDICTED) throw new Error("this layer was packed by a newer layerscope; update layerscope");
  const codes = new Uint8Array(buffer, codesAt, C * h * w);
  if (flags & PREDICTED) undoPrediction(codes, C, h, w);
  head[3] = 0; // now these are the codes themselves
  const stats = named(arrays.map(([name, type], n) => [name, new (Reflect.get(TYPES, type))(buffer, start + 4 * C * n, C)]));
  return { C, h, w, lo: stats.lo, hi: stats.hi, stats, codes, mips: [], counts: null };
}

/** @param {[string, Numbers][]} pairs @returns {Record<string, Numbers>} */
function named(pairs) {
  return Object.fromEntries(pairs);
}

/** @param {Block} block @param {number} c @param {number} y @param {number} x @returns {number} NaN if not finite */
export function valueAt(block, c, y, x) {
  const code = block.codes[(c * block.h + y) * block.w + x];
  return code === undefined || code === NONFINITE ? NaN : block.lo[c] + (code * (block.hi[c] - block.lo[c])) / 254;
}

/** @param {Block} block @returns {Span} least and greatest value of all planes; NaN where there is none */
export function spanOf(block) {
  let [low, high] = [Infinity, -Infinity];
  for (let c = 0; c < block.C; c++) {
    if (block.lo[c] < low) low = block.lo[c];
    if (block.hi[c] > high) high = block.hi[c];
  }
  return low <= high ? [low, high] : [NaN, NaN];
}

/** @param {Block} block @returns {Uint32Array} (C, 256) */
export function countsOf(block) {
  if (block.counts) return block.counts;
  const counts = new Uint32Array(block.C * 256),
    size = block.h * block.w;
  for (let c = 0, at = 0; c < block.C; c++) {
    const row = c * 256;
    for (let end = at + size; at < end; at++) counts[row + block.codes[at]]++;
  }
  block.counts = counts;
  return counts;
}

/**
 * A histogram of some planes, made from the codes: right to half a step of each plane's range.
 * @param {Block} block
 * @param {Iterable<number>} planes
 * @param {Span} span
 * @param {number} bins
 * @returns {Float64Array}
 */
export function binned(block, planes, [low, high], bins) {
  const out = new Float64Array(bins),
    counts = countsOf(block),
    perValue = high > low ? bins / (high - low) : 0;
  for (const c of planes) {
    const step = (block.hi[c] - block.lo[c]) / 254;
    for (let code = 0; code < NONFINITE; code++) {
      const n = counts[c * 256 + code];
      if (!n) continue;
      const at = Math.floor((block.lo[c] + code * step - low) * perValue);
      out[at < 0 ? 0 : at >= bins ? bins - 1 : at] += n;
    }
  }
  return out;
}

/** @param {Block} block @param {number} c @param {Span} within @returns {number} how many values of a plane lie within these two values */
export function countWithin(block, c, [low, high]) {
  if (!(block.hi[c] >= low && block.lo[c] <= high)) return 0;
  const counts = countsOf(block),
    step = (block.hi[c] - block.lo[c]) / 254;
  let sum = 0;
  for (let code = 0; code < NONFINITE; code++) {
    const value = block.lo[c] + code * step;
    if (value >= low && value <= high) sum += counts[c * 256 + code];
  }
  return sum;
}

/** @param {Block} block @param {number} c @returns {Span} (y, x) of the greatest value of a plane */
export function peakOf(block, c) {
  const size = block.h * block.w;
  let [best, at] = [-1, 0];
  for (let i = 0; i < size; i++) {
    const code = block.codes[c * size + i];
    if (code !== NONFINITE && code > best) [best, at] = [code, i];
  }
  return [Math.floor(at / block.w), at % block.w];
}

/** A minus B, coded anew so that it is drawn like any other block. @param {Block} a @param {Block} b of the same C, h, w @returns {Block} */
export function difference(a, b) {
  const { C, h, w } = a,
    size = h * w,
    stats = named(Object.keys(a.stats).map((name) => [name, new Float32Array(C).fill(NaN)])),
    out = { C, h, w, lo: stats.lo, hi: stats.hi, stats, codes: new Uint8Array(C * size), mips: [], counts: null };
  const values = new Float32Array(size);
  for (let c = 0; c < C; c++) differenceOf(a, b, c, values, out);
  return out;
}

/**
 * One plane of it; `mean` becomes the mean of |A - B|, what channels are sorted by. What does not follow is NaN.
 * @param {Block} a @param {Block} b @param {number} c @param {Float32Array} values @param {Block} out
 */
function differenceOf(a, b, c, values, out) {
  const size = values.length,
    [stepA, stepB] = [(a.hi[c] - a.lo[c]) / 254, (b.hi[c] - b.lo[c]) / 254],
    gap = a.lo[c] - b.lo[c];
  let [low, high, sum, squares, finite] = [Infinity, -Infinity, 0, 0, 0];
  for (let i = 0, at = c * size; i < size; i++, at++) {
    const [p, q] = [a.codes[at], b.codes[at]],
      value = p === NONFINITE || q === NONFINITE ? NaN : gap + p * stepA - q * stepB;
    values[i] = value;
    if (Number.isNaN(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
    finite++;
    sum += Math.abs(value);
    squares += value * value;
  }
  if (!finite) [low, high] = [NaN, NaN];
  const known = { lo: low, hi: high, min: low, max: high, mean: sum / finite, std: Math.sqrt(squares / finite), nan: size - finite };
  for (const [name, value] of Object.entries(known)) if (out.stats[name]) out.stats[name][c] = value;
  const perValue = high > low ? 254 / (high - low) : 0;
  for (let i = 0, at = c * size; i < size; i++, at++) {
    out.codes[at] = Number.isNaN(values[i]) ? NONFINITE : Math.round((values[i] - low) * perValue);
  }
}

/** The block at 1/1, 1/2, 1/4, ... of its size: what a small tile is drawn from. @param {Block} block @param {number} level */
export function mipOf(block, level) {
  if (!block.mips.length) block.mips.push({ codes: block.codes, h: block.h, w: block.w });
  while (block.mips.length <= level) {
    const last = block.mips[block.mips.length - 1];
    block.mips.push(halve(last.codes, block.C, last.h, last.w));
  }
  return block.mips[level];
}

/**
 * Undone in place: each code is added to the mean, rounded down, of its left and its upper neighbour.
 * @param {Uint8Array} codes (C, h, w)
 * @param {number} C @param {number} h @param {number} w
 */
function undoPrediction(codes, C, h, w) {
  for (let c = 0, at = 0; c < C && h && w; c++) {
    let left = codes[at++];
    for (let x = 1; x < w; x++, at++) codes[at] = left = (left + codes[at]) & 255;
    for (let y = 1; y < h; y++) {
      codes[at] = left = (codes[at] + codes[at - w]) & 255;
      at++;
      for (let x = 1; x < w; x++, at++) codes[at] = left = (codes[at] + ((left + codes[at - w]) >> 1)) & 255;
    }
  }
}
