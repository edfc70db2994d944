// Deep links: what is looked at, and how, as the fragment of the address. It works in the server, in a file opened from
// disk and in a notebook's frame, because a fragment never reaches a server.

/** @type {Link} */
export const HOME = { layer: "", channel: -1, y: -1, x: -1, image: 0, range: "channel", map: "", sort: "index", mode: "side", query: "", step: -1, against: -1 };

/** @type {Record<string, string[]>} */
const CHOICES = {
  range: ["channel", "layer", "network"],
  map: ["viridis", "gray", "diverging"],
  mode: ["side", "swipe", "blink", "diff"],
};

/** @param {string} fragment with or without the # @returns {Link} what is missing or makes no sense is as in HOME */
export function parseHash(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, "")),
    link = { ...HOME };
  link.layer = given.get("layer") ?? "";
  for (const name of /** @type {const} */ (["channel", "y", "x", "image", "step", "against"])) {
    const text = given.get(name);
    if (text !== null && /^\d{1,9}$/.test(text)) link[name] = Number(text);
  }
  if (link.y >= 0) link.x = Math.max(link.x, 0);
  for (const name of /** @type {const} */ (["range", "map", "mode"])) {
    const text = given.get(name);
    if (text !== null && CHOICES[name].includes(text)) link[name] = text;
  }
  const sort = given.get("sort") ?? "";
  if (/^\w{1,32}$/.test(sort)) link.sort = sort; // what there is to sort by is in the index, which is still to come
  const query = given.get("query") ?? "";
  if (/^(tokens|mean|\d{1,4},\d{1,4})$/.test(query)) link.query = query;
  return link;
}

/** @param {Link} link @returns {string} the fragment with its #; settings that are as in HOME are left out */
export function formatHash(link) {
  const out = new URLSearchParams();
  for (const name of /** @type {(keyof Link)[]} */ (Object.keys(HOME))) {
    if (link[name] !== HOME[name]) out.set(name, String(link[name]));
  }
  const text = out.toString();
  return text ? `#${text}` : "";
}

/** @param {Link} link @returns {Link} only the fields of a link */
export function linkOf(link) {
  return /** @type {Link} */ (Object.fromEntries(Object.keys(HOME).map((name) => [name, Reflect.get(link, name)])));
}
