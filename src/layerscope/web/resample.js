// Codes made smaller. Means of codes are means of values, since codes are linear in the value within a channel.

const HOLE = 255;

/**
 * Means of 2 x 2 codes. A value that is not finite stays visible at any size: one of four is enough.
 * @param {Uint8Array} codes (C, h, w)
 * @param {number} C @param {number} h @param {number} w
 * @returns {{codes: Uint8Array, h: number, w: number}}
 */
export function halve(codes, C, h, w) {
  const [h2, w2] = [(h + 1) >> 1, (w + 1) >> 1],
    out = new Uint8Array(C * h2 * w2);
  for (let c = 0, o = 0; c < C; c++) {
    for (let y = 0; y < h2; y++) {
      const top = (c * h + 2 * y) * w,
        low = 2 * y + 1 < h ? top + w : top;
      for (let x = 0; x < w2; x++, o++) {
        const left = 2 * x,
          right = left + 1 < w ? left + 1 : left,
          [p, q, r, s] = [codes[top + left], codes[top + right], codes[low + left], codes[low + right]];
        out[o] = p === HOLE || q === HOLE || r === HOLE || s === HOLE ? HOLE : (p + q + r + s + 2) >> 2;
      }
    }
  }
  return { codes: out, h: h2, w: w2 };
}

/**
 * Which source pixels each of `size` target pixels is made of: nearest when enlarging, two neighbours when reducing.
 * @param {number} from @param {number} size
 * @returns {{first: Int32Array, second: Int32Array, share: Int32Array, smooth: boolean}} share of the second in 1/256
 */
export function taps(from, size) {
  const first = new Int32Array(size),
    second = new Int32Array(size),
    share = new Int32Array(size),
    smooth = size < from;
  for (let i = 0; i < size; i++) {
    if (!smooth) {
      first[i] = second[i] = Math.min(from - 1, Math.floor(((i + 0.5) * from) / size));
      continue;
    }
    const at = Math.max(0, ((i + 0.5) * from) / size - 0.5);
    first[i] = Math.min(from - 1, Math.floor(at));
    second[i] = Math.min(from - 1, first[i] + 1);
    share[i] = Math.round((at - first[i]) * 256);
  }
  return { first, second, share, smooth };
}

/**
 * One target row of codes.
 * @param {Uint8Array} line receives pixels `from` to `to`
 * @param {Uint8Array} codes
 * @param {number} top start of the upper source row @param {number} low start of the lower one
 * @param {number} down share of the lower row in 1/256
 * @param {ReturnType<typeof taps>} across
 * @param {number} from @param {number} to
 */
export function sampleLine(line, codes, top, low, down, across, from, to) {
  const { first, second, share } = across;
  if (!across.smooth && !down) {
    for (let i = from; i < to; i++) line[i] = codes[top + first[i]];
    return;
  }
  for (let i = from; i < to; i++) {
    const [p, q] = [codes[top + first[i]], codes[top + second[i]]],
      [r, s] = [codes[low + first[i]], codes[low + second[i]]];
    if (p === HOLE || q === HOLE || r === HOLE || s === HOLE) {
      line[i] = HOLE;
      continue;
    }
    const right = share[i],
      upper = p * 256 + (q - p) * right,
      lower = r * 256 + (s - r) * right;
    line[i] = (upper * 256 + (lower - upper) * down + 32768) >> 16;
  }
}
