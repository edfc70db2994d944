// The shapes of data that the modules hand to each other. For the type checker alone: the page never loads this file.

type Store = import("./store.js").Store;
type Stage = import("./stage.js").Stage;
type LayerList = import("./layers.js").LayerList;
type Loader = import("./loader.js").Loader;
type Steps = ReturnType<typeof import("./steps.js").setUpSteps>;
type Examples = import("./examples.js").Examples;
type Span = [number, number];
type Numbers = Float32Array | Uint32Array;

/** One output of a layer, or one tensor of a checkpoint; docs/viewer.md describes the index that these come from. */
interface Layer {
  /** of a tensor of the live network: kernels/3 */
  id: number | string;
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
  maps: { c: number; h: number; w: number; reduced: number; at?: [number, number] }[];
  /** whether a survey knows more of it */
  profile?: boolean;
  total: Record<string, number | null> | null;
  histogram: { edges: number[]; counts: number[] } | null;
}
/** One figure of a channel or tensor, as `stats/table.py` has it. */
interface Statistic { name: string; label: string; type: "float" | "count"; text: string; brief: boolean }
/** Where things lie in a block: arrays of a value a plane, by name and type, between the header and the codes. */
interface Layout { header_bytes: number; arrays: [string, string][] }
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
  kind: string;
  /** what a layer is called */
  entry: "layer" | "tensor";
  /** two sides */
  compares: boolean;
  /** a survey: maps are the best examples of a data set */
  dataset: boolean;
  /** in the order in which they are shown */
  statistics: Statistic[];
  block: Layout;
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
  /** names of the tensors with a picture, where there is a live network */
  kernels?: string[];
  /** of a survey: the names of the classes, and the images that excite some channel most */
  classes?: string[];
  images?: SurveyImage[];
  similarity?: { keys: string[]; minibatches: number; value: (number | null)[][] } | null;
  /** counts what the server has shown so far */
  version?: number;
  /** of a run; `at` tells what is shown of it from what else could be */
  step?: number;
  at?: string;
}
interface RunEvent { step: number; kind: string; layer: string; text: string; channels: number[] }
/** A training over its steps; docs/viewer.md describes it. */
interface Run {
  /** tells it from another run that takes its place */
  started: number | null;
  steps: number[];
  times: (number | null)[];
  scalars: Record<string, [number, number | null][]>;
  events: RunEvent[];
  notes: string[];
  live?: boolean;
  version?: number;
}

/** Where the data comes from. */
interface Source {
  /** of its blocks; known once there is an index */
  layout: Layout;
  /** null while there is none yet; of a run at this step, or at the newest one */
  index(step?: number): Promise<Index | null>;
  run(): Promise<Run>;
  block(layer: Layer, image: number): Promise<ArrayBuffer>;
  /** an address for an image element */
  picture(picture: Picture, n: number): string;
  unit(layer: Layer, channel: number, image: number, at: number[]): Promise<any>;
  /** the tensors of the live network, as the index of a checkpoint or of a comparison */
  kernels(): Promise<Index>;
  /** the tokens without a place, or the attention from another query */
  part(layer: Layer, image: number, query: string): Promise<ArrayBuffer>;
  /** a new image for the live network */
  send(file: File): Promise<void>;
  /** what a survey knows of a layer */
  profile(layer: Layer): Promise<ArrayBuffer>;
  /** an image of the data set */
  shown(image: SurveyImage): Promise<Blob>;
  /** calls `hear` with everything that happens from now on */
  events(hear: (event: any) => void): void;
}

/** One layer on one image as it travels. */
interface Block {
  /** planes; three a kernel where kernels are shown in red, green and blue */
  C: number;
  h: number;
  w: number;
  lo: Numbers;
  hi: Numbers;
  /** of the channel over all images, a value a plane, by the names of the index */
  stats: Record<string, Numbers>;
  /** (C, h, w): value = lo + code * (hi - lo) / 254; 255 is not finite */
  codes: Uint8Array;
  /** halved once, twice, ...; made when first drawn small */
  mips: { codes: Uint8Array; h: number; w: number }[];
  /** (C, 256) how often each code occurs; made when first asked for */
  counts: Uint32Array | null;
}

/** An image of a survey; `pixels` where the record has them. */
interface SurveyImage { number: number; name: string; label: string; width: number; height: number; pixels: boolean }
/** One image that excites a channel: the value, where it is in the map, and where the window of the map begins. */
interface Example { place: number; number: number; value: number; y: number; x: number; top: number; left: number }
/** What a survey knows of a layer; see docs/record.md. Arrays of C channels, or of C times `places`. */
interface Profile {
  images: number;
  copies: [number, number, number][];
  rank: number | null;
  grid: [number, number];
  lines: [number, number, number, number][] | null;
  silent: Uint32Array;
  favourite: Int32Array | null;
  selectivity: Float32Array | null;
  explained: Float32Array | null;
  places: number;
  image: Int32Array | null;
  value: Float32Array | null;
  position: Int32Array | null;
  at: Int32Array | null;
  bins: { numbers: Int32Array; counts: Float32Array } | null;
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
  /** what of the layer: "tokens", or where attention looks from: "mean", "3,4" */
  query: string;
  /** of a run, and the step that it is compared with; -1 where there is none */
  step: number;
  against: number;
}
/** The blocks of a row that have arrived. */
interface Shown { id: string; row: Row; image: number; a: Block | null; b: Block | null }
interface Place { y: number; x: number }
interface Hit extends Place { tile: number }
interface Spot extends Hit { side: string }
interface Progress { state: string; done: number; of: number; what: string }
interface State extends Link {
  index: Index | null;
  run: Run | null;
  /** jump to the newest step as it comes */
  follow: boolean;
  playing: boolean;
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
  /** how a unit came about, where there is a live network; of both in a comparison */
  look: any[] | null;
  /** the live network's tensors, once they were asked for */
  kernels: Index | null;
  tensors: Row[];
  /** the tokens without a place of the layer */
  apart: Block | null;
  /** of the layer with this id */
  profile: { id: number | string; data: Profile } | null;
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
/** a label, what stands behind it, and its title where that is another */
type Figure = [string, string, string?];
interface Large { element: HTMLElement; draw(at: Place | null): void }
interface Contribution { name: string; patch: number[][]; kernel: number[][]; product: number[][]; total: number }
