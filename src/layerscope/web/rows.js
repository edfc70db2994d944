// What the list on the left holds: layers, tensors, and in a comparison pairs of them. No element of the page in here.

/** Of another layer nothing is chosen yet. */
export const TOP = { channel: -1, y: -1, x: -1, query: "" };

/** @param {Index} index @returns {Row[]} */
export function rowsOf(index) {
  if (!index.compares) return index.layers.map((layer) => rowOf(layer.key, layer.path, layer, null, null, ""));
  if (!index.layers.length) return index.pairs.map((pair) => rowOf(pair.name, pair.name, null, null, pair, ""));
  if (index.entry === "layer") return [...stageRows(index), ...pairRows(index)];
  return [...(index.at ? [] : [rowOf("all tensors", "all tensors", null, null, null, "")]), ...pairRows(index)];
}

/** What is looked at: a layer, or a tensor of the live network. @param {State} state @returns {Row|undefined} */
export function rowNow({ rows, tensors, layer }) {
  return [...rows, ...tensors].find((row) => row.key === layer);
}

/** The layer of a tensor of the live network. @param {State} state @returns {Row|undefined} */
export function homeOf({ rows, tensors, layer }) {
  const tensor = tensors.find((row) => row.key === layer);
  return tensor && rows.find((row) => [row.a, row.b].some((one) => one && [tensor.a, tensor.b].some((other) => other && isIn(other.path, one))));
}

/** @param {string} name of a tensor @param {Layer} layer */
function isIn(name, layer) {
  return name.slice(0, name.lastIndexOf(".")) === layer.path.replace(/\[.*/, "");
}

/** The tensors of a layer that have a picture, where the network is there. @param {Index} index @param {Row} row */
export function kernelsIn(index, row) {
  return (index.kernels ?? []).filter((name) => [row.a, row.b].some((one) => one && isIn(name, one)));
}

/** Whether a link names something that is there. @param {State} state @param {Index} index @param {string} key */
export function isKnown({ rows, tensors }, index, key) {
  return [...rows, ...tensors].some((row) => row.key === key) || (index.kernels ?? []).some((name) => bare(key).startsWith(name));
}

/** How many images can be chosen between: of a survey, how many best examples. @param {Index} index */
export function imagesIn(index) {
  if (index.dataset) return Math.max(0, ...index.layers.map((layer) => layer.maps.length));
  return index.pictures.length;
}

/** What a survey knows of the layer that is shown. @param {State} state @returns {Profile|null} */
export function profileNow({ profile, shown }) {
  return profile && profile.id === shown?.row.a?.id ? profile.data : null;
}

/** @param {number} tokens */
export function tokenName(tokens) {
  return tokens > 1 ? `class token + ${tokens - 1}` : "class token";
}

/** How many tokens in front have no place in the image, one by one. @param {Layer|null|undefined} layer @param {number} image */
export function tokensOf(layer, image) {
  const map = layer?.maps[image],
    axis = { NLC: 1, NCLL: 3 }[layer?.layout ?? ""];
  return layer && map && axis && map.reduced === 1 ? layer.shape[axis] - map.h * map.w : -1;
}

/** @param {string} key @param {string} path @param {Layer|null} a @param {Layer|null} b @param {Pair|null} pair @param {string} how @returns {Row} */
function rowOf(key, path, a, b, pair, how) {
  return { key, path, a, b, pair, how };
}

/** @param {string} key @returns {string} without the side in front */
function bare(key) {
  return key.replace(/^[ab]:/, "");
}

/** @param {Index} index @returns {Map<string, Layer>} */
function sided(index) {
  return new Map(index.layers.map((layer) => [`${layer.side}:${bare(layer.key)}`, layer]));
}

/** The last layers of each size side by side, where the two are no copies of one architecture. @param {Index} index */
function stageRows(index) {
  const known = sided(index);
  /** @type {Row[]} */
  const rows = [];
  for (const [keyA, keyB] of index.stages) {
    const [a, b] = [known.get(`a:${bare(keyA)}`), known.get(`b:${bare(keyB)}`)];
    if (!a || !b || bare(keyA) === bare(keyB)) continue;
    const key = `stage: ${bare(keyA)} ~ ${bare(keyB)}`;
    rows.push(rowOf(key, `stages.${a.maps[0]?.h ?? 0} × ${a.maps[0]?.w ?? 0}`, a, b, null, "stage"));
  }
  return rows;
}

/** By name; what is left by shape, in order; the rest alone. @param {Index} index @returns {Row[]} */
function pairRows(index) {
  const known = sided(index),
    pairs = new Map(index.pairs.map((pair) => [bare(pair.name), pair])),
    firsts = index.layers.filter((layer) => layer.side === "a"),
    seconds = index.layers.filter((layer) => layer.side === "b"),
    loose = seconds.filter((layer) => !known.has(`a:${bare(layer.key)}`));
  const rows = firsts.map((a) => {
    const name = bare(a.key),
      b = known.get(`b:${name}`) ?? null;
    if (b) return rowOf(name, a.path, a, b, pairs.get(name) ?? null, "name");
    const like = takeLike(loose, a);
    if (!like) return rowOf(`a:${name}`, a.path, a, null, pairs.get(name) ?? null, "");
    return rowOf(`${name} ~ ${bare(like.key)}`, a.path, a, like, null, "shape");
  });
  return [...rows, ...loose.map((b) => rowOf(`b:${bare(b.key)}`, b.path, null, b, pairs.get(bare(b.key)) ?? null, ""))];
}

/** Remove and return the first layer of the same type and shape. @param {Layer[]} layers @param {Layer} a */
function takeLike(layers, a) {
  const at = layers.findIndex((b) => b.type === a.type && b.shape.length > 1 && String(b.shape) === String(a.shape));
  return at < 0 ? null : layers.splice(at, 1)[0];
}

/** Both at hand and of one size: A minus B, swipe and blink make sense. @param {Row} row @param {number} image */
export function alike(row, image) {
  const [a, b] = [row.a?.maps[image], row.b?.maps[image]];
  return Boolean(a && b && a.c === b.c && a.h === b.h && a.w === b.w);
}

/** @param {Row[]} rows @param {string} filter words that all must occur in path or type; with a star a glob; `dead` for layers with dead channels @returns {Row[]} */
export function matching(rows, filter) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const tests = words.map((word) => {
    if (word === "dead") return (/** @type {Row} */ row) => Boolean(row.a?.dead.length || row.b?.dead.length);
    const glob = new RegExp(word.includes("*") ? `^${word.split("*").map(escaped).join(".*")}$` : escaped(word));
    return (/** @type {Row} */ row) => [row.key, row.path, row.a?.type ?? "", row.b?.type ?? ""].some((text) => glob.test(text.toLowerCase()));
  });
  return rows.filter((row) => tests.every((test) => test(row)));
}

/** @param {string} text */
function escaped(text) {
  return text.replace(/[.+?^${}()|[\]\\]/g, "\\$&");
}

/**
 * The rows as a tree, written as lines with their depth. Where a module holds one thing alone, the two share a line.
 * @param {Row[]} rows
 * @param {Set<string>} closed ids of groups whose content is hidden
 * @returns {Item[]}
 */
export function treeOf(rows, closed) {
  /** @type {Branch} */
  const root = { label: "", row: [], below: new Map() };
  for (const row of rows) {
    let node = root;
    // What a run has of a tensor or a layer beside it hangs below.
    for (const part of row.path.replace(/\/(batch|grad|update)$/, ".$1").split(".")) {
      let next = node.below.get(part);
      if (!next) node.below.set(part, (next = { label: part, row: [], below: new Map() }));
      node = next;
    }
    node.row.push(row);
  }
  /** @type {Item[]} */
  const items = [];
  for (const node of root.below.values()) lay(node, "", 0, closed, items);
  return items;
}

/** @param {Branch} node @param {string} prefix @param {number} depth @param {Set<string>} closed @param {Item[]} items */
function lay(node, prefix, depth, closed, items) {
  let label = node.label;
  while (!node.row.length && node.below.size === 1) {
    [node] = node.below.values();
    label += `.${node.label}`;
  }
  const id = prefix ? `${prefix}.${label}` : label;
  for (const row of node.row) {
    const again = row.a?.call || row.b?.call;
    items.push({ id: row.key, label: again ? `${label} :${again}` : label, depth, row, size: 0 });
  }
  if (!node.below.size) return;
  if (!node.row.length) items.push({ id, label, depth, row: null, size: sizeOf(node) });
  if (!closed.has(id)) for (const child of node.below.values()) lay(child, id, depth + 1, closed, items);
}

/** @param {Branch} node @returns {number} */
function sizeOf(node) {
  return [...node.below.values()].reduce((sum, child) => sum + sizeOf(child), node.row.length);
}
