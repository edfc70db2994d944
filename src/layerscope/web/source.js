// Where the data comes from: a server, or the file itself. The rest of the page does not know which.

/** What a newer server or file could say that this page would misread. */
const SCHEMA_KNOWN = 1;

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
    detail = JSON.parse(said).error ?? JSON.parse(said).detail ?? said;
  } catch {
    // plain text already
  }
  throw new Error(detail || `the server says ${answer.status}`);
}

/** @returns {Source} */
function httpSource() {
  return {
    async index() {
      const answer = await asked("/api/index");
      return answer.status === 200 ? understood(await answer.json()) : null; // 202: the network is still loading
    },
    block: async (layer, image) => (await asked(`/api/block/${layer.id}/${image}`)).arrayBuffer(),
    picture: (_, n) => `/api/picture/${n}.png?${pictureVersion}`,
    async unit(layer, channel, image, at) {
      const where = at.length ? `?y=${at[0]}&x=${at[1] ?? 0}` : "";
      return (await asked(`/api/unit/${encodeURIComponent(layer.key)}/${channel}/${image}${where}`)).json();
    },
    async send(file) {
      await asked(`/api/image?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
    },
    events(hear) {
      const stream = new EventSource("/api/events");
      stream.onmessage = (message) => hear(JSON.parse(message.data));
      return () => stream.close();
    },
  };
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
  return {
    index: async () => index,
    async block(layer, image) {
      const text = document.getElementById(`block-${layer.id}-${image}`)?.textContent;
      if (!text) throw new Error("the maps of this layer were left out of the file, to keep it small");
      return unpack(text);
    },
    picture: (picture) => picture.src ?? "",
    unit: async () => {
      throw new Error("no network in this file");
    },
    send: async () => {
      throw new Error("no network in this file");
    },
    events: () => () => {},
  };
}

/** @param {string} text base64 of gzip @returns {Promise<ArrayBuffer>} */
async function unpack(text) {
  const packed = atob(text.trim());
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
