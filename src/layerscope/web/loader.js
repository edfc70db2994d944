// Blocks: fetched when a layer is chosen, kept while there is room, and the neighbours fetched ahead.

import { parseBlock } from "./block.js";

const BUDGET_BYTES = 256 << 20;

export class Loader {
  /** @param {Source} source @param {number} [budget] bytes */
  constructor(source, budget = BUDGET_BYTES) {
    this.source = source;
    this.budget = budget;
    /** @type {Map<string, {promise: Promise<Block>, bytes: number}>} */
    this.kept = new Map();
  }

  /** @param {Layer|null} layer @param {number} image @returns {Promise<Block|null>} */
  async get(layer, image) {
    /** @type {Place|undefined} */
    const place = layer?.maps[image];
    if (!layer || !place) return null;
    const [id, shown] = place.at ?? [layer.id, image],
      key = `${id}/${shown}`;
    let found = this.kept.get(key);
    if (!found) {
      found = { promise: fetched(this.source, { ...layer, id }, shown, place), bytes: place.c * (place.h * place.w + 4 * this.source.layout.arrays.length) };
      found.promise.catch(() => this.kept.delete(key)); // ask again next time
    }
    this.kept.delete(key); // the last used one goes to the end
    this.kept.set(key, found);
    this.trim();
    return found.promise;
  }

  /** @param {Row} row @param {number} image @returns {Promise<[Block|null, Block|null]>} */
  both(row, image) {
    return Promise.all([this.get(row.a, image), this.get(row.b, image)]);
  }

  trim() {
    let bytes = 0;
    for (const one of this.kept.values()) bytes += one.bytes;
    for (const [key, one] of this.kept) {
      if (bytes <= this.budget || this.kept.size <= 2) return;
      this.kept.delete(key);
      bytes -= one.bytes;
    }
  }

  /** Other pictures now: nothing of the old ones may be shown. */
  forget() {
    this.kept.clear();
  }
}

/**
 * @typedef {{c: number, h: number, w: number, at?: [number, number]}} Place what the index says of one map, and in a
 * file whose block, layer and image, this one is equal to
 * @param {Source} source @param {Layer} layer @param {number} image @param {Place} place
 * @returns {Promise<Block>}
 */
async function fetched(source, layer, image, { c, h, w }) {
  let block;
  try {
    block = parseBlock(await source.block(layer, image), source.layout);
  } catch (error) {
    // What base64 and gzip say of a damaged file says nothing to who looks at it.
    if (error instanceof DOMException || error instanceof TypeError) throw new Error(`the data of ${layer.key} is damaged or cut off`);
    throw error;
  }
  if (block.C !== c || block.h !== h || block.w !== w) throw new Error(`the data of ${layer.key} does not have the size that was announced`);
  return block;
}
