// The shapes of data that the modules hand to each other. For the type checker alone: the page never loads this file.

type Store = import("./store.js").Store;
type Stage = import("./stage.js").Stage;
type LayerList = import("./layers.js").LayerList;
type Loader = import("./loader.js").Loader;
type Span = [number, number];

/** One output of a layer, or one tensor of a checkpoint; docs/viewer.md describes the index that these come from. */
interface Layer {
  id: number;
  key: string;
  path: string;
  call: number;
  side: string;
  type: string;
  shape: number[];
  layout: string;
  dtype: string;
  note: string;
  dead: number[];
  channels: number;
  maps: { c: number; h: number; w: number; reduced: number }[];
  total: Record<string, number | null> | null;
  histogram: { edges: number[]; counts: number[] } | null;
}
interface Pair {
  name: string;
  shape_a: number[] | null;
  shape_b: number[] | null;
  status: string;
  max_abs: number | null;
  mean_abs: number | null;
  cosine: number | null;
}
interface Finding { name: string; kind: string; channels: number[]; detail: string }
interface Prediction { index: number; label: string; probability: number }
interface Picture { name: string; width: number; height: number; src?: string }
interface Index {
  schema: number;
  kind: "features" | "weights" | "compare";
  subject: string;
  subject_b: string;
  notes: string[];
  never: string[];
  provenance: Record<string, any>;
  pictures: Picture[];
  predictions: Prediction[][];
  findings: Finding[];
  pairs: Pair[];
  stages: [string, string][];
  layers: Layer[];
  live: { image: boolean; units: boolean } | null;
  left_out: string[];
  /** counts what the server has shown so far */
  version?: number;
}

/** Where the data comes from. */
interface Source {
  /** null while there is none yet */
  index(): Promise<Index | null>;
  block(layer: Layer, image: number): Promise<ArrayBuffer>;
  /** an address for an image element */
  picture(picture: Picture, n: number): string;
  unit(layer: Layer, channel: number, image: number, at: number[]): Promise<any>;
  /** a new image for the live network */
  send(file: File): Promise<void>;
  events(hear: (event: any) => void): () => void;
}

/** One layer on one image as it travels. */
interface Block {
  /** planes; three a kernel where kernels are shown in red, green and blue */
  C: number;
  h: number;
  w: number;
  lo: Float32Array;
  hi: Float32Array;
  mean: Float32Array;
  std: Float32Array;
  min: Float32Array;
  max: Float32Array;
  zeros: Uint32Array;
  nan: Uint32Array;
  inf: Uint32Array;
  /** (C, h, w): value = lo + code * (hi - lo) / 254; 255 is not finite */
  codes: Uint8Array;
  /** halved once, twice, ...; made when first drawn small */
  mips: { codes: Uint8Array; h: number; w: number }[];
  /** (C, 256) how often each code occurs; made when first asked for */
  counts: Uint32Array | null;
}

/** What the list on the left holds. */
interface Row {
  /** unique; what the deep link names */
  key: string;
  /** dotted: where the row hangs in the tree */
  path: string;
  a: Layer | null;
  /** the other network's layer */
  b: Layer | null;
  pair: Pair | null;
  /** how the two were matched: name, shape, stage; "" where there is one alone */
  how: string;
}
interface Item { id: string; label: string; depth: number; row: Row | null; size: number }
interface Branch { label: string; row: Row[]; below: Map<string, Branch> }

/** What a deep link names. */
interface Link {
  layer: string;
  /** -1 where none is chosen, as y and x */
  channel: number;
  y: number;
  x: number;
  image: number;
  range: string;
  /** "" for what suits the tensor */
  map: string;
  sort: string;
  mode: string;
}
/** The blocks of a row that have arrived. */
interface Shown { row: Row; image: number; a: Block | null; b: Block | null }
interface Place { y: number; x: number }
interface Hit extends Place { tile: number }
interface Spot extends Hit { side: string }
interface Progress { state: string; done: number; of: number; what: string }
interface State extends Link {
  index: Index | null;
  rows: Row[];
  shown: Shown | null;
  scene: Scene | null;
  hover: Spot | null;
  /** values, not pixels */
  brush: Span | null;
  filter: string;
  theme: string;
  progress: Progress | null;
  /** what went wrong, in a sentence */
  trouble: string;
  /** of the layer */
  bins: Bins | null;
  /** how a unit came about, where there is a live network */
  look: any;
}

/** What lies on a sheet. */
interface Tiles {
  block: Block;
  layer: Layer;
  /** three planes a tile */
  rgb: boolean;
  count: number;
  /** fixed by the meaning of the tensor; 0 where tiles may flow */
  columns: number;
  /** a vector: cells without gaps, in rows */
  strip: boolean;
  dead: Set<number>;
  what: string;
}
/** Where tiles lie, in CSS pixels at zoom 1. */
interface Grid {
  columns: number;
  rows: number;
  tileW: number;
  tileH: number;
  /** from one tile to the next */
  stepX: number;
  stepY: number;
  /** room above a tile for its label; 0 where tiles are too small for one */
  head: number;
  /** room at the left for the numbers of rows */
  left: number;
  width: number;
  height: number;
}
interface Colours {
  map: string;
  table: Uint32Array;
  /** the values at the two ends */
  bounds(tile: number): Span;
}
interface Pane { side: string; tiles: Tiles; order: Int32Array; colours: Colours }
interface Scene {
  shown: Shown;
  /** two side by side, or two on one sheet in swipe and blink */
  panes: Pane[];
  /** of a comparison, as far as it can be had; "one" where there is one network */
  mode: string;
  a: Tiles | null;
  b: Tiles | null;
  diff: Tiles | null;
  /** tiles with a value within the brush */
  chosen: Set<number> | null;
  rgb: boolean;
}

/** x, y: the sheet's point at the window's corner, CSS pixels at zoom 1. */
interface View { zoom: number; x: number; y: number }
/** The middle of the window as shares of the sheet: fits any sheet. */
interface Camera { zoom: number; cx: number; cy: number }
/** Device pixels; what lies outside of left..right is not touched. */
interface Target { pixels: Uint32Array; width: number; height: number; left: number; right: number }
interface Marks { channel: number; hover: Hit | null; unit: Place | null; chosen: Set<number> | null }
interface SheetHooks {
  hover(hit: Hit | null, event: PointerEvent): void;
  pick(hit: Hit): void;
  /** the camera has changed */
  moved(): void;
}
interface Bins { low: number; high: number; series: { counts: ArrayLike<number>; colour: string }[] }
interface Box { x: number; y: number; width: number; height: number }
interface Large { element: HTMLElement; draw(at: Place | null): void }
interface Contribution { name: string; patch: number[][]; kernel: number[][]; product: number[][]; total: number }
