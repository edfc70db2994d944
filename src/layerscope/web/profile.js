// What a survey knows of a layer: best examples of its channels, the classes they follow, histograms over a data set.

import { TYPES } from "./block.js";
import { clamp } from "./dom.js";

/** @typedef {{images: number, copies: [number, number, number][], rank: number|null, grid: [number, number], lines: [number, number, number, number][]|null, arrays: [string, string, number[]][]}} ProfileHead */

/** The profile block of `views/format.py`. Every size is checked: a file may come from anyone. @param {ArrayBuffer} buffer @returns {Profile} */
export function profileOf(buffer) {
  const size = new DataView(buffer).getUint32(0, true);
  /** @type {ProfileHead} */
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  /** @type {Record<string, {data: any, sizes: number[]}>} */
  const found = {};
  let at = 4 + size;
  for (const [name, kind, sizes] of head.arrays) {
    at = Math.ceil(at / 4) * 4;
    const count = sizes.reduce((all, one) => all * one, 1);
    found[name] = { data: new (Reflect.get(TYPES, kind))(buffer, at, count), sizes };
    at += 4 * count;
  }
  const { silent, favourite, selectivity, explained, image, value, position, at: begin, spread, bins } = found;
  return {
    images: head.images, copies: head.copies, rank: head.rank, grid: head.grid, lines: head.lines,
    silent: silent.data, favourite: favourite?.data ?? null, selectivity: selectivity?.data ?? null, explained: explained?.data ?? null,
    places: image ? image.sizes[1] : 0, image: image?.data ?? null, value: value?.data ?? null, position: position?.data ?? null, at: begin?.data ?? null,
    bins: spread && bins ? { numbers: bins.data, counts: spread.data } : null,
  };
}

/** The examples of a channel, best first. @param {Profile} profile @param {number} channel @returns {Example[]} */
export function examplesOf(profile, channel) {
  const found = [];
  for (let place = 0; place < profile.places; place++) {
    const at = channel * profile.places + place,
      { image, value, position, at: begin } = profile;
    if (!image || !value || !position || !begin || image[at] < 0) break;
    found.push({ place, number: image[at], value: value[at], y: position[2 * at], x: position[2 * at + 1], top: begin[2 * at], left: begin[2 * at + 1] });
  }
  return found;
}

/**
 * Parts of an image that an example is about, as in `profiles.crop_of`: what the best unit sees, where the cells of the window
 * lie, and both together. Each x0, y0, x1, y1 in pixels of the image.
 * @param {Profile} profile @param {Example} example @param {number} h @param {number} w sizes of the window
 * @param {number} height @param {number} width of the image
 * @returns {{shown: number[], field: number[], heat: number[]}}
 */
export function cropOf(profile, example, h, w, height, width) {
  const axis = (/** @type {number} */ n, /** @type {number} */ first, /** @type {number} */ best, /** @type {number} */ count, /** @type {number} */ size) => {
    const [low, high, step, whole] = profile.lines?.[n] ?? [-size, size, 0, size],
      ends = (/** @type {number} */ unit) => [low, high].map((pixel) => clamp(pixel + step * unit, 0, whole)),
      cell = step || whole / Math.max(profile.grid[n], 1),
      start = step ? (low + high) / 2 + step * (first - 0.5) : first * cell;
    return { shown: [0, 0], field: ends(best), heat: [start, start + cell * count] };
  };
  const y = axis(0, example.top, example.y, h, height),
    x = axis(1, example.left, example.x, w, width);
  for (const one of [y, x]) one.shown = [Math.max(0, Math.min(one.field[0], Math.floor(one.heat[0]))), Math.max(one.field[1], Math.min(Math.ceil(one.heat[1]), one === y ? height : width))];
  const box = (/** @type {"shown"|"field"|"heat"} */ name) => [x[name][0], y[name][0], x[name][1], y[name][1]];
  return { shown: box("shown"), field: box("field"), heat: box("heat") };
}

/**
 * Counts of a channel over its own range in equal steps, from bins of float bits; a bin that straddles is shared out.
 * @param {Profile} profile @param {number} channel @param {number} zeros @param {[number, number]} span @param {number} steps
 */
export function spreadOf(profile, channel, zeros, [low, high], steps) {
  const counts = new Float64Array(steps),
    { bins } = profile;
  if (!bins || !(high > low)) return counts;
  const at = (/** @type {number} */ value) => ((value - low) / (high - low)) * steps;
  const share = (/** @type {number} */ from, /** @type {number} */ to, /** @type {number} */ count) => {
    const [a, b] = [Math.max(at(from), 0), Math.min(at(to), steps)];
    for (let step = Math.floor(a); step < b; step++) counts[Math.min(step, steps - 1)] += (count * (Math.min(step + 1, b) - Math.max(step, a))) / Math.max(b - a, 1e-12);
  };
  bins.numbers.forEach((bin, n) => {
    const count = bins.counts[channel * bins.numbers.length + n];
    if (count) share(...edgeOf(bin), count);
  });
  if (zeros) counts[clamp(Math.floor(at(0)), 0, steps - 1)] += zeros;
  return counts;
}

/**
 * The value below or at which that share of a channel's values lies: the middle of its bin, at most 6.3 % away.
 * @param {Profile} profile @param {number} channel @param {number} zeros @param {[number, number]} span @param {number} share
 */
export function quantileOf({ bins }, channel, zeros, [low, high], share) {
  const { numbers, counts } = /** @type {NonNullable<Profile["bins"]>} */ (bins),
    all = Array.from(numbers, (bin, n) => ({ value: edgeOf(bin).reduce((a, b) => (a + b) / 2), many: counts[channel * numbers.length + n] }));
  all.push({ value: 0, many: zeros });
  let left = Math.max(Math.ceil(share * all.reduce((sum, { many }) => sum + many, 0)), 1);
  const found = all.sort((a, b) => a.value - b.value).find(({ many }) => (left -= many) <= 0);
  return clamp(found?.value ?? NaN, low, high);
}

const BITS = new DataView(new ArrayBuffer(4));

/** The bounds of a bin of float bits: sign, exponent, three bits of the mantissa. @param {number} bin @returns {[number, number]} */
function edgeOf(bin) {
  const part = (/** @type {number} */ bits) => {
    BITS.setUint32(0, bits * 2 ** 20);
    return BITS.getFloat32(0);
  };
  const magnitude = bin < 2048 ? 2047 - bin : bin - 2048,
    [inner, outer] = [part(magnitude), part(magnitude + 1)];
  return bin < 2048 ? [-outer, -inner] : [inner, outer];
}
