// Where the data comes from: a server, or the file itself. The rest of the page does not know which.

/** What a newer server or file could say that this page would misread. */
const SCHEMA_KNOWN = 1;
/** Between two tries to hear of news, at first and at most. */
const AGAIN_MS = 2000,
  AGAIN_AT_MOST_MS = 30000;

/** @returns {Source} */
export function chooseSource() {
  const packed = document.getElementById("layerscope-index");
  return packed ? embeddedSource(packed) : httpSource();
}

/** @param {Index} index @returns {Index} */
function understood(index) {
  if (index.schema > SCHEMA_KNOWN) throw new Error(`made by a newer layerscope (schema ${index.schema}); update layerscope`);
  return index;
}

/** @param {string} address @param {RequestInit} [options] @returns {Promise<Response>} */
async function asked(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("the server does not answer: it was stopped, or is not reachable");
  }
  if (answer.ok) return answer;
  const said = (await answer.text()).slice(0, 300);
  let detail = said;
  try {
    detail = JSON.parse(said).error ?? said;
  } catch {
    // plain text already
  }
  throw new Error(detail || `the server says ${answer.status}`);
}

/** @returns {Source} */
function httpSource() {
  /** @type {Source} */
  const source = {
    layout: { header_bytes: 0, arrays: [] },
    async index(step) {
      const answer = await asked(`/api/index${step === undefined ? "" : `?step=${step}`}`);
      if (answer.status === 202) return null; // the network is still loading
      const found = understood(await answer.json());
      source.layout = found.block;
      if (found.step !== undefined) addressed(found, found.step);
      return found;
    },
    run: async () => (await asked("/api/run")).json(),
    block: async (layer, image) => (await asked(`/api/block/${layer.id}/${image}`)).arrayBuffer(),
    picture: (_, n) => `/api/picture/${n}.png?${pictureVersion}`,
    async unit(layer, channel, image, at) {
      const where = at.length ? `?y=${at[0]}&x=${at[1] ?? 0}` : "";
      return (await asked(`/api/unit/${encodeURIComponent(layer.key)}/${channel}/${image}${where}`)).json();
    },
    async kernels() {
      const found = understood(await (await asked("/api/kernels")).json());
      return addressed(found, "kernels");
    },
    async part(layer, image, query) {
      const [y, x] = query.split(","),
        what = query === "tokens" ? query : "attention";
      return (await asked(`/api/${what}/${encodeURIComponent(layer.key)}/${image}${x ? `?y=${y}&x=${x}` : ""}`)).arrayBuffer();
    },
    profile: async (layer) => (await asked(`/api/profile/${layer.id}`)).arrayBuffer(),
    shown: async ({ number }) => (await asked(`/api/shown/${number}`)).blob(),
    async send(file) {
      await asked(`/api/image?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
    },
    events(hear) {
      let wait = AGAIN_MS;
      const open = () => {
        const stream = new EventSource("/api/events");
        stream.onopen = () => (wait = AGAIN_MS);
        stream.onmessage = (message) => hear(JSON.parse(message.data));
        // A line that breaks is opened anew by the browser; an answer that is no stream, as of a full server, ends it.
        stream.onerror = () => {
          if (stream.readyState !== EventSource.CLOSED) return;
          setTimeout(open, wait);
          wait = Math.min(2 * wait, AGAIN_AT_MOST_MS);
        };
      };
      open();
    },
  };
  return source;
}

/** Where the blocks are, in front of the numbers of the layers. @param {Index} index @param {string|number} where */
function addressed(index, where) {
  for (const layer of index.layers) layer.id = `${where}/${layer.id}`;
  return index;
}

// A new image comes under the address of the old one.
let pictureVersion = 0;

/** The pictures on the server have changed. */
export function pictureChanged() {
  pictureVersion++;
}

/** @param {HTMLElement} packed @returns {Source} */
function embeddedSource(packed) {
  const index = understood(JSON.parse(packed.textContent ?? "null"));
  const none = async () => {
    throw new Error("no network in this file");
  };
  return {
    layout: index.block,
    async index(step) {
      const text = step !== index.step && textOf(`index-${step}`);
      try {
        return text ? JSON.parse(new TextDecoder().decode(await unpack(text))) : index;
      } catch {
        throw new Error(`the record of step ${step} is damaged or cut off`);
      }
    },
    run: async () => JSON.parse(textOf("layerscope-run")),
    async block(layer, image) {
      const text = textOf(`block-${layer.id}-${image}`);
      if (!text) throw new Error("the maps of this layer were left out of the file, to keep it small");
      return unpack(text);
    },
    picture: (picture, n) => picture.src ?? index.pictures[n].src ?? "",
    async profile(layer) {
      const text = textOf(`profile-${layer.id}`);
      if (!text) throw new Error(`nothing of ${layer.key} but its statistics is in this file`);
      return unpack(text);
    },
    shown: async ({ number }) => new Blob([bytesOf(textOf(`shown-${number}`))], { type: "image/webp" }),
    unit: none, send: none, kernels: none, part: none,
    events: () => {},
  };
}

/** @param {string} id */
function textOf(id) {
  return document.getElementById(id)?.textContent ?? "";
}

/** @param {string} text base64 */
function bytesOf(text) {
  const packed = atob(text.trim()),
    bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  return bytes;
}

/** @param {string} text base64 of gzip @returns {Promise<ArrayBuffer>} */
async function unpack(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
