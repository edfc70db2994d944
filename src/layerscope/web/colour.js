// Codes become colours: a table of 256 entries for each tile, so that ranges and colours change without a fetch.

/** Anchors, equally spaced, straight lines between them; the same as in layerscope.maps. @type {Record<string, string>} */
const ANCHORS = {
  viridis:
    "440154 470d60 48186a 482374 472d7b 453681 424086 3f4989 3b528b 375a8d 33638d " +
    "2f6a8e 2c728e 297a8e 26818e 23898e 21908c 1f988b 1f9f88 21a685 28ae80 31b57b " +
    "3ebc74 4cc26c 5dc963 6ece58 82d34c 96d83f abdc32 c0df24 d5e21a eae51a fde725",
  gray: "000000 ffffff",
  diverging: "123a6f 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 6f0d20",
};

/** @type {Map<string, Uint32Array>} */
const tables = new Map();

/** @param {string} name @returns {Uint32Array} 256 colours as the pixels of ImageData, alpha on top (little-endian, as every browser's machine) */
export function colourTable(name) {
  const known = tables.get(name);
  if (known) return known;
  const anchors = (ANCHORS[name] ?? ANCHORS.viridis).split(" ").map((text) => parseInt(text, 16)),
    table = new Uint32Array(256);
  for (let step = 0; step < 256; step++) {
    const at = (step / 255) * (anchors.length - 1),
      left = Math.min(Math.floor(at), anchors.length - 2);
    const mixed = [16, 8, 0].map((shift) => {
      const [p, q] = [(anchors[left] >> shift) & 255, (anchors[left + 1] >> shift) & 255];
      return Math.round(p + (q - p) * (at - left));
    });
    table[step] = pixel(mixed[0], mixed[1], mixed[2]);
  }
  tables.set(name, table);
  return table;
}

/** @param {number} r @param {number} g @param {number} b */
export function pixel(r, g, b) {
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

/** @param {string} name @returns {string} a CSS gradient from the least to the greatest value */
export function gradient(name) {
  const colours = (ANCHORS[name] ?? ANCHORS.viridis).split(" ").map((text) => `#${text}`);
  return `linear-gradient(90deg, ${colours.join(", ")})`;
}

/**
 * The colour step of each code of a plane whose codes stand for lo..hi, shown over low..high.
 * @param {Uint8Array} steps receives 255 steps, 0 to 255
 * @param {number} lo @param {number} hi @param {number} low @param {number} high
 */
export function stepsOf(steps, lo, hi, low, high) {
  const width = high > low ? high - low : 1,
    slope = (((hi - lo) / 254) * 255) / width,
    base = ((lo - low) * 255) / width;
  for (let code = 0; code < 255; code++) {
    const step = base + code * slope;
    steps[code] = step > 0 ? (step < 255 ? step + 0.5 : 255) : 0; // NaN falls to 0
  }
}

/** @param {Span} span @returns {Span} as far below zero as above: white is zero */
export function around([low, high]) {
  const most = Math.max(Math.abs(low), Math.abs(high));
  return most > 0 ? [-most, most] : [-1, 1];
}

/** Not finite: stripes, in two tones that no colour map has side by side. @param {number} x @param {number} y pixels of the screen */
export function hatch(x, y) {
  return ((x + y) >> 2) & 1 ? 0xff30303a : 0xffe8e8f0;
}
