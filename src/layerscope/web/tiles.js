// What lies on a sheet: which planes make a tile, how tiles are called, and where they are. Pure arithmetic.

/** @param {Block} block @param {Layer} layer @returns {Tiles} */
export function tilesOf(block, layer) {
  const [O, I] = layer.layout.startsWith("OI") ? layer.shape : [0, 0],
    rgb = I === 3 && layer.layout === "OIHW" && block.C === 3 * O,
    count = rgb ? O : block.C,
    perKernel = O && block.C === O * I && I > 1 && !rgb ? I : 1,
    strip = block.h === 1 && block.w === 1 && count > 1,
    matrix = block.C === 1 && layer.channels > 1,
    dead = new Set();
  if (!matrix) for (const channel of layer.dead) for (let i = 0; i < perKernel; i++) dead.add(channel * perKernel + i);
  const what = strip ? "values" : matrix ? "matrix" : O ? "kernels" : layer.type === "attention" ? "heads" : "channels";
  return { block, layer, rgb, count, columns: perKernel > 1 ? perKernel : 0, strip, dead, what };
}

/** @param {Tiles} tiles @param {number} tile @returns {number[]} the planes that a tile is made of */
export function planesOf(tiles, tile) {
  return tiles.rgb ? [3 * tile, 3 * tile + 1, 3 * tile + 2] : [tile];
}

/** @param {Tiles} tiles @param {number} tile @returns {string} */
export function labelOf(tiles, tile) {
  if (!tiles.columns) return String(tile);
  return `${Math.floor(tile / tiles.columns)}, ${tile % tiles.columns}`;
}

/** @param {Tiles} tiles @param {number} tile @returns {string} "channel 37", "kernel 3 on input 5" */
export function nameOf(tiles, tile) {
  if (tiles.what === "matrix") return "matrix";
  if (tiles.columns) return `kernel ${Math.floor(tile / tiles.columns)} on input ${tile % tiles.columns}`;
  return `${tiles.what.slice(0, -1)} ${tile}`;
}

/**
 * @param {Tiles} tiles
 * @param {string} sort
 * @param {Block|null} change A minus B, whose `mean` is the mean of |A - B|
 * @param {Profile|null} [profile] of a survey
 * @returns {Int32Array} tiles in the order in which they are laid
 */
export function orderOf(tiles, sort, change, profile = null) {
  const order = Int32Array.from({ length: tiles.count }, (_, i) => i),
    { block } = tiles,
    top = (/** @type {Numbers} */ from) => (/** @type {number} */ tile) => Math.max(...planesOf(tiles, tile).map((c) => from[c]));
  /** @type {((tile: number) => number)|null} */
  let key = null;
  if (block.stats[sort]) key = top(block.stats[sort]);
  if (sort === "max") key = top(block.hi); // of this image
  if (sort === "std" && tiles.strip) key = (tile) => Math.abs(block.lo[tile]);
  if (sort === "dead") key = (tile) => (tiles.dead.has(tile) ? 2 : top(block.stats.zeros)(tile) / Math.max(1, block.h * block.w * 1e9));
  if (sort === "silent" && profile) key = (tile) => profile.silent[tile];
  if (sort === "class" && profile?.explained) key = (tile) => /** @type {Float32Array} */ (profile.explained)[tile];
  if (sort === "change" && change) key = (tile) => planesOf(tiles, tile).reduce((sum, plane) => sum + change.stats.mean[plane], 0);
  if (!key) return order;
  const keys = Float64Array.from({ length: tiles.count }, (_, tile) => {
    const value = /** @type {(tile: number) => number} */ (key)(tile);
    return Number.isNaN(value) ? -Infinity : value;
  });
  // A row is one kernel on all its inputs, and stays together.
  for (let at = 0, n = tiles.columns; n && at < keys.length; at += n) keys.fill(Math.max(...keys.subarray(at, at + n)), at, at + n);
  return order.sort((p, q) => keys[q] - keys[p] || p - q);
}

const LARGEST_PIXEL = 40;
const HEAD_PX = 15;

/** The columns that make all tiles as large as possible within a window. @param {Tiles} tiles @param {number} width @param {number} height @returns {Grid} */
export function fitGrid(tiles, width, height) {
  const { h, w } = tiles.block;
  if (tiles.strip) return fitStrip(tiles.count, width, height);
  let best = gridOf(tiles, tiles.columns || 1, width, height);
  if (!tiles.columns) {
    for (let columns = 2; columns <= tiles.count; columns++) {
      const grid = gridOf(tiles, columns, width, height);
      if (grid.tileW > best.tileW) best = grid;
      if (columns * 3 > width) break;
    }
  }
  return snapped(best, h, w);
}

/** @param {Tiles} tiles @param {number} columns @param {number} width @param {number} height @returns {Grid} */
function gridOf(tiles, columns, width, height) {
  const { h, w } = tiles.block,
    rows = Math.ceil(tiles.count / columns),
    rough = Math.min(width / columns, ((height / rows) * w) / h),
    gap = Math.min(6, Math.max(1, Math.round(rough * 0.07))),
    head = rough >= 56 && tiles.count > 1 ? HEAD_PX : 0,
    room = Math.min((width - gap) / columns - gap, (((height - gap) / rows - gap - head) * w) / h),
    tileW = Math.max(0.05, Math.min(room, LARGEST_PIXEL * w));
  return assemble(columns, rows, tileW, (tileW * h) / w, gap, head, 0);
}

/**
 * @param {number} columns @param {number} rows @param {number} tileW @param {number} tileH @param {number} gap
 * @param {number} head @param {number} left
 * @returns {Grid}
 */
function assemble(columns, rows, tileW, tileH, gap, head, left) {
  const [stepX, stepY] = [tileW + gap, tileH + gap + head];
  return { columns, rows, tileW, tileH, stepX, stepY, head, left, width: left + columns * stepX - gap, height: rows * stepY - gap };
}

/** Whole pixels a value where that costs little room: all squares are then of one size. @param {Grid} grid @param {number} h @param {number} w */
function snapped(grid, h, w) {
  const factor = Math.floor(grid.tileW / w);
  if (factor < 3) return grid;
  const gap = grid.stepX - grid.tileW;
  return assemble(grid.columns, grid.rows, factor * w, factor * h, gap, grid.head, grid.left);
}

/** A vector: rows of a round number of cells. @param {number} count @param {number} width @param {number} height @returns {Grid} */
function fitStrip(count, width, height) {
  const left = 42;
  let best = null;
  for (const columns of [10, 16, 20, 32, 40, 50, 64, 100, 128, 200, 256]) {
    const rows = Math.ceil(count / columns),
      side = Math.min((width - left) / columns, height / rows - 1, 26);
    if (!best || side > best.tileW + 0.5) best = assemble(columns, rows, side, Math.min(side * 1.5, height / rows - 1, 30), 0, 0, left);
    if (columns >= count) break;
  }
  const grid = /** @type {Grid} */ (best);
  return assemble(grid.columns, grid.rows, grid.tileW, grid.tileH - 1, 0, 1, left);
}

/**
 * The tile under a point of the sheet.
 * @param {Grid} grid @param {Tiles} tiles @param {number} x @param {number} y CSS pixels at zoom 1
 * @returns {{slot: number, y: number, x: number}|null} the place in the order, and the value's row and column
 */
export function hitGrid(grid, tiles, x, y) {
  const column = Math.floor((x - grid.left) / grid.stepX),
    row = Math.floor(y / grid.stepY),
    inX = x - grid.left - column * grid.stepX,
    inY = y - row * grid.stepY - grid.head,
    slot = row * grid.columns + column;
  if (column < 0 || column >= grid.columns || row < 0 || slot >= tiles.count) return null;
  if (inX < 0 || inX >= grid.tileW || inY < 0 || inY >= grid.tileH) return null;
  const { h, w } = tiles.block;
  return {
    slot,
    y: Math.min(h - 1, Math.floor((inY / grid.tileH) * h)),
    x: Math.min(w - 1, Math.floor((inX / grid.tileW) * w)),
  };
}

/** @param {Grid} grid @param {number} slot @returns {Span} left and top of a tile at zoom 1 */
export function placeOf(grid, slot) {
  return [grid.left + (slot % grid.columns) * grid.stepX, Math.floor(slot / grid.columns) * grid.stepY + grid.head];
}
