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
    if (!layer?.maps[image]) return null;
    const key = `${layer.id}/${image}`;
    let found = this.kept.get(key);
    if (!found) {
      const { c, h, w } = layer.maps[image];
      found = { promise: this.source.block(layer, image).then(parseBlock), bytes: c * (h * w + 36) };
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
