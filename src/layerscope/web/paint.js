// Tiles into the pixels of one canvas: only what is seen, one table lookup a pixel.

import { mipOf, NONFINITE } from "./block.js";
import { hatch } from "./colour.js";
import { fillLut, fillSteps } from "./ranges.js";
import { sampleLine, taps } from "./resample.js";
import { planesOf } from "./tiles.js";

const lut = new Uint32Array(256);
const steps = [new Uint8Array(256), new Uint8Array(256), new Uint8Array(256)];

/**
 * @param {Target} target device pixels; what lies outside of left..right is not touched
 * @param {Tiles} tiles
 * @param {Int32Array} order
 * @param {Grid} grid
 * @param {View} view
 * @param {number} ratio device pixels a CSS pixel
 * @param {Colours} colours
 */
export function paintTiles(target, tiles, order, grid, view, ratio, colours) {
  const scale = view.zoom * ratio;
  // Cells of a strip touch: rounded up, or lines of paper would run between some of them.
  const rounded = tiles.strip ? Math.ceil : Math.round,
    width = Math.max(1, rounded(grid.tileW * scale)),
    height = Math.max(1, rounded(grid.tileH * scale)),
    { codes, h, w } = sourceFor(tiles, width),
    across = taps(w, width),
    down = taps(h, height),
    lines = [0, 1, 2].map(() => new Uint8Array(width)),
    [firstRow, lastRow] = seen(view.y, target.height / scale, grid.stepY, grid.rows);
  for (let row = firstRow; row <= lastRow; row++) {
    const y0 = Math.round((row * grid.stepY + grid.head - view.y) * scale);
    for (let column = 0; column < grid.columns; column++) {
      const slot = row * grid.columns + column;
      if (slot >= order.length) return;
      const x0 = Math.round((grid.left + column * grid.stepX - view.x) * scale),
        from = Math.max(0, target.left - x0),
        to = Math.min(width, target.right - x0);
      if (from >= to) continue;
      const tile = order[slot],
        planes = planesOf(tiles, tile),
        bounds = colours.bounds(tile);
      if (planes.length === 1) fillLut(lut, tiles, planes[0], bounds, colours.table);
      else planes.forEach((plane, n) => fillSteps(steps[n], tiles, plane, bounds));
      const last = Math.min(height, target.height - y0);
      for (let y = Math.max(0, -y0); y < last; y++) {
        planes.forEach((plane, n) => {
          const base = plane * h * w;
          sampleLine(lines[n], codes, base + down.first[y] * w, base + down.second[y] * w, down.share[y], across, from, to);
        });
        const at = (y0 + y) * target.width + x0;
        if (planes.length === 1) colourLine(target.pixels, at, lines[0], from, to, x0, y0 + y);
        else mixLine(target.pixels, at, lines, from, to, x0, y0 + y);
      }
    }
  }
}

/** Halved as often as tiles are drawn at less than half their size. @param {Tiles} tiles @param {number} width */
function sourceFor(tiles, width) {
  let level = 0;
  while (tiles.block.w >> (level + 1) >= width && level < 12) level++;
  return mipOf(tiles.block, level);
}

/** First and last row in a window. @param {number} start @param {number} size @param {number} step @param {number} rows */
function seen(start, size, step, rows) {
  return [Math.max(0, Math.floor(start / step)), Math.min(rows - 1, Math.floor((start + size) / step))];
}

/** @param {Uint32Array} pixels @param {number} at @param {Uint8Array} line @param {number} from @param {number} to @param {number} x0 @param {number} y */
function colourLine(pixels, at, line, from, to, x0, y) {
  for (let i = from; i < to; i++) {
    const code = line[i];
    pixels[at + i] = code === NONFINITE ? hatch(x0 + i, y) : lut[code];
  }
}

/**
 * @param {Uint32Array} pixels @param {number} at @param {Uint8Array[]} lines red, green, blue
 * @param {number} from @param {number} to @param {number} x0 @param {number} y
 */
function mixLine(pixels, at, [red, green, blue], from, to, x0, y) {
  for (let i = from; i < to; i++) {
    const [r, g, b] = [red[i], green[i], blue[i]],
      broken = r === NONFINITE || g === NONFINITE || b === NONFINITE;
    pixels[at + i] = broken ? hatch(x0 + i, y) : ((255 << 24) | (steps[2][b] << 16) | (steps[1][g] << 8) | steps[0][r]) >>> 0;
  }
}
