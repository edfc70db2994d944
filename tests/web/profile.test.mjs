// A survey's block read back, its crops and its histograms. Run by `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";
const WEB = new URL(process.env.LAYERSCOPE_WEB ?? "../../src/layerscope/web/", import.meta.url);
const { cropOf, examplesOf, profileOf, quantileOf, spreadOf } = await import(new URL("profile.js", WEB).href);

function block(head, arrays) {
  const kinds = { f4: Float32Array, i4: Int32Array, u4: Uint32Array };
  const json = new TextEncoder().encode(JSON.stringify({ ...head, arrays: arrays.map(([name, kind, sizes]) => [name, kind, sizes]) }));
  const bytes = [...new Uint8Array(Uint32Array.of(json.length).buffer), ...json];
  for (const [, kind, , values] of arrays) {
    while (bytes.length % 4) bytes.push(0);
    bytes.push(...new Uint8Array(kinds[kind].from(values).buffer));
  }
  return Uint8Array.from(bytes).buffer;
}

const head = { images: 5, copies: [[0, 1, 0.99]], rank: 1.5, grid: [8, 8], lines: [[-3, 4, 2, 16], [-1, 2, 2, 16]] };
const whole = () => profileOf(block(head, [
  ["silent", "u4", [2], [1, 5]], ["explained", "f4", [2], [0.5, NaN]],
  ["image", "i4", [2, 2], [3, 1, -1, -1]], ["value", "f4", [2, 2], [3, 2.5, 0, 0]],
  ["position", "i4", [2, 2, 2], [4, 5, 0, 7, 0, 0, 0, 0]], ["at", "i4", [2, 2, 2], [2, 3, 0, 4, 0, 0, 0, 0]],
  ["spread", "f4", [2, 3], [8, 0, 16, 0, 0, 0]], ["bins", "i4", [3], [0, 1, 2].map((n) => 2048 + 8 * 127 + n)],
]));

test("every array comes back", () => {
  const profile = whole();
  assert.deepEqual([...profile.silent], [1, 5]);
  assert.equal(profile.places, 2);
  assert.equal(profile.favourite, null);
  assert.deepEqual(examplesOf(profile, 0), [
    { place: 0, number: 3, value: 3, y: 4, x: 5, top: 2, left: 3 }, { place: 1, number: 1, value: 2.5, y: 0, x: 7, top: 0, left: 4 },
  ]);
  assert.deepEqual(examplesOf(profile, 1), []);
});

test("a block that is cut off throws", () => {
  const data = block(head, [["silent", "u4", [2], [1, 5]]]);
  assert.throws(() => profileOf(data.slice(0, data.byteLength - 4)));
  assert.throws(() => profileOf(data.slice(0, 30)));
});

test("the crop holds the window, the frame the best unit, the cells lie in the middle of what they see", () => {
  const profile = whole();
  const { shown, field, heat } = cropOf(profile, examplesOf(profile, 0)[0], 4, 4, 16, 16);
  assert.deepEqual(shown, [5, 3, 14, 12]);
  assert.deepEqual(field, [9, 5, 12, 12]);
  assert.deepEqual(heat, [5.5, 3.5, 13.5, 11.5]);
  const blind = { ...profile, lines: null, grid: [8, 8] };
  assert.deepEqual(cropOf(blind, examplesOf(blind, 0)[0], 4, 4, 16, 16), { shown: [0, 0, 16, 16], field: [0, 0, 16, 16], heat: [6, 4, 14, 12] });
});

test("bins of float bits become equal steps and lose no count", () => {
  const profile = whole();
  const counts = spreadOf(profile, 0, 3, [0, 2], 16); // bins 1 to 1.125 and 1.25 to 1.375, and three zeros
  assert.equal(counts.reduce((sum, one) => sum + one, 0), 27);
  assert.equal(counts[8], 8);
  assert.equal(counts[10], 16);
  assert.equal(counts[0], 3);
  const wide = spreadOf(profile, 0, 0, [0, 20], 4);
  assert.equal(wide[0], 24);
});

test("quantiles are the middles of bins", () => {
  // 24 zeros, 8 values from 1 to 1.125 and 16 from 1.25 to 1.375
  const at = (share) => quantileOf(whole(), 0, 24, [0, 1.3], share);
  assert.deepEqual([0, 0.5, 0.51, 0.66, 0.67, 1].map(at), [0, 0, 1.0625, 1.0625, 1.3, 1.3]);
  assert.ok(Number.isNaN(quantileOf(whole(), 1, 0, [NaN, NaN], 0.5)));
});
