// One channel, large: drawn like a tile of the sheet, on a canvas of its own.

import { clamp, cleared, h, inPixels, num, on, outline, sharpen } from "./dom.js";
import { paintTiles } from "./paint.js";

/**
 * @param {Tiles} tiles @param {number} tile @param {Colours} colours @param {string} caption
 * @param {(at: Place|null, picked: boolean) => void} point
 * @returns {Large}
 */
export function largeTile(tiles, tile, colours, caption, point) {
  const base = /** @type {HTMLCanvasElement} */ (h("canvas.pixels")),
    top = /** @type {HTMLCanvasElement} */ (h("canvas.marks", { role: "img", "aria-label": caption })),
    element = h("div.large", base, top),
    { h: rows, w: columns } = tiles.block;
  const frame = () => {
    const [width, height] = [base.clientWidth, base.clientHeight],
      factor = Math.min(width / columns, height / rows),
      size = factor >= 3 ? Math.floor(factor) : factor,
      [tileW, tileH] = [columns * size, rows * size];
    return { size, tileW, tileH, left: (width - tileW) / 2, top: (height - tileH) / 2 };
  };
  const at = (/** @type {PointerEvent} */ event) => {
    const { size, left, top: above } = frame(),
      [y, x] = [Math.floor((event.offsetY - above) / size), Math.floor((event.offsetX - left) / size)];
    return y >= 0 && x >= 0 && y < rows && x < columns ? { y, x } : null;
  };
  on(top, "pointermove", (event) => point(at(event), false));
  on(top, "pointerleave", () => point(null, false));
  on(top, "click", (event) => {
    const hit = at(/** @type {PointerEvent} */ (event));
    if (hit) point(hit, true);
  });
  let painted = false;
  return {
    element,
    draw(spot) {
      const { size, tileW, tileH, left, top: above } = frame();
      if (!painted) paintOne(base, tiles, tile, colours, { tileW, tileH, left, top: above });
      painted = true;
      const { ctx } = cleared(top);
      if (!spot) return;
      const side = Math.max(size, 4),
        [x, y] = [left + (spot.x + 0.5) * size - side / 2, above + (spot.y + 0.5) * size - side / 2];
      outline(ctx, [x, y, side, side], ["#000", 3], ["#fff", 1.5]);
    },
  };
}

/**
 * @param {HTMLCanvasElement} canvas @param {Tiles} tiles @param {number} tile @param {Colours} colours
 * @param {{tileW: number, tileH: number, left: number, top: number}} place
 */
export function paintOne(canvas, tiles, tile, colours, { tileW, tileH, left, top }) {
  const { ctx, ratio } = sharpen(canvas),
    image = ctx.createImageData(canvas.width, canvas.height),
    pixels = new Uint32Array(image.data.buffer),
    target = { pixels, width: canvas.width, height: canvas.height, left: 0, right: canvas.width },
    grid = { columns: 1, rows: 1, tileW, tileH, stepX: tileW, stepY: tileH, head: 0, left: 0, width: tileW, height: tileH };
  paintTiles(target, tiles, Int32Array.of(tile), grid, { zoom: 1, x: -left, y: -top }, ratio, colours);
  ctx.putImageData(image, 0, 0);
}

/**
 * A small picture of signed numbers around zero: a patch, a kernel, their products.
 * @param {number[][]} rows @param {number} most the value of full colour @param {Uint32Array} table @param {number} [cell] pixels
 * @returns {HTMLElement}
 */
export function numberGrid(rows, most, table, cell = 0) {
  const [height, width] = [rows.length, rows[0]?.length ?? 0];
  if (height * width === 1) return h("span.one-number", num(rows[0][0], 3));
  const canvas = /** @type {HTMLCanvasElement} */ (h("canvas.number-grid", { width, height })),
    size = cell || Math.max(3, Math.floor(46 / Math.max(width, height)));
  [canvas.style.width, canvas.style.height] = [`${width * size}px`, `${height * size}px`];
  return inPixels(canvas, ({ buffer }) => {
    const pixels = new Uint32Array(buffer);
    rows.forEach((row, y) => row.forEach((value, x) => {
      const step = Math.round(((value / (most || 1)) * 0.5 + 0.5) * 255);
      pixels[y * width + x] = table[clamp(step, 0, 255)];
    }));
  });
}

