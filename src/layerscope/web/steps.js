// A training over its steps: the bar with the slider, what is shown at a step, and two steps as a comparison.

import { byId, clicked, fill, h, num, on, quiet, saidOf, svg } from "./dom.js";
import { TOP, rowsOf } from "./rows.js";

const PLAY_MS = 350;
const MOST_KEPT = 24;

/** @param {Store} store @param {Source} source @param {Loader} loader @param {() => Promise<void>} showLayer the chosen layer, of the index of the moment */
export function setUpSteps(store, source, loader, showLayer) {
  const { state } = store,
    [slider, other, scalar] = /** @type {(HTMLInputElement & HTMLSelectElement)[]} */ (["step", "against", "scalar"].map(byId)),
    [said, list] = byId("events").children,
    steps = () => state.run?.steps ?? [],
    last = () => steps()[steps().length - 1];
  /** @type {Map<number, Promise<Index|null>>} */
  const kept = new Map();

  /** There is a run, or more of it. */
  async function read() {
    const run = await source.run(),
      { run: old, step, follow } = state,
      other = old?.started !== run.started;
    if (old && other) kept.clear(), loader.forget();
    store.set({ run, progress: null, trouble: "", follow: old ? follow : Boolean(run.live) && (step < 0 || step >= (run.steps.at(-1) ?? 0)) });
    if (state.follow || step < 0) store.set({ step: last() });
    if (other || [step, state.against].some((one) => one >= 0 && !run.steps.includes(one))) await show();
  }

  /** @param {number} step @param {Partial<State>} [more] */
  function go(step, more) {
    store.set({ step, playing: false, follow: false, ...more });
  }

  /** To the step before or after. @param {number} by */
  function move(by) {
    const next = steps()[steps().indexOf(state.step) + by];
    if (next === undefined) store.set({ playing: false });
    else go(next, by > 0 ? { playing: state.playing, follow: state.follow } : {});
  }

  function play() {
    if (!state.playing && state.step === last()) go(steps()[0]);
    store.set({ playing: !state.playing });
  }

  function follow() {
    go(state.follow ? state.step : last(), { follow: !state.follow });
  }

  /** @param {number} step */
  function at(step) {
    const found = kept.get(step) ?? source.index(step);
    kept.delete(step); // the last used one goes to the end
    kept.set(step, found);
    found.catch(() => kept.delete(step)); // ask again next time
    for (const old of kept.keys()) if (kept.size > MOST_KEPT) kept.delete(old);
    return /** @type {Promise<Index>} */ (found);
  }

  /** The step that is chosen takes the place of the last one in one go, when all of it is here. */
  async function show() {
    const { step, against, run } = state;
    if (!run || step < 0) return;
    const [known, second] = [nearestOf(run.steps, step), against < 0 ? -1 : nearestOf(run.steps, against)];
    if (known !== step || second !== against) return store.set({ step: known, against: second });
    const still = () => state.step === step && state.against === against;
    try {
      const [a, b] = await Promise.all([at(step), second < 0 ? null : at(second)]);
      const findings = run.events.filter((event) => nearestOf(run.steps, event.step, true) === step)
        .map(({ layer, text, ...event }) => ({ ...event, name: layer, detail: text }));
      const index = { ...(b ? paired(a, b) : { ...a, at: `@${step}` }), findings },
        rows = rowsOf(index),
        layer = state.layer || rows[0]?.key || "",
        row = rows.find(({ key }) => key === layer);
      if (row) await loader.both(row, state.image);
      if (!still()) return;
      store.set({ index, rows, layer, progress: null, trouble: row ? "" : `${layer} is not in the record of step ${step}` });
      await showLayer();
      // What will be asked for next, if all goes on like this.
      const here = run.steps.indexOf(step);
      for (const next of [1, -1, 2].map((by) => run.steps[here + by])) {
        const found = next !== undefined && (await at(next).catch(() => null))?.layers.find(({ key }) => key === layer);
        if (found) loader.get(found, state.image).catch(() => {});
      }
    } catch (error) {
      // Thinned out, or damaged: the server says soon which steps there are, and the one before takes its place.
      if (still()) store.set({ trouble: saidOf(error), progress: null });
    }
  }

  /** What changes with the run. */
  function build() {
    const { run } = state;
    byId("steps").hidden = !run;
    if (!run) return;
    byId("follow").hidden = !run.live;
    const names = Object.keys(run.scalars),
      name = [scalar.value, names.find((one) => one.includes("loss")) ?? ""].find((one) => names.includes(one));
    fill(scalar, ...names.map((one) => h("option", one)));
    scalar.hidden = !names.length;
    if (name) scalar.value = name;
    fill(other, ...[-1, ...run.steps].map((step) => h("option", { value: step }, step < 0 ? "compare…" : `with step ${step}`)));
    byId("events").hidden = !run.events.length && !run.notes.length;
    fill(said, `${run.events.length} event${run.events.length === 1 ? "" : "s"}${run.notes.length ? ", notes" : ""}`);
    fill(list, ...run.notes.map((note) => h("li", note)),
      ...run.events.map((event) => h("li", h("button", { onclick: () => seek(event) }, `step ${event.step}: ${event.text}`))));
    say();
  }

  /** The figure over the steps, and where something happened. */
  function curve() {
    const x = (/** @type {number} */ step) => {
      const all = steps(),
        next = all.findIndex((one) => one >= step),
        part = next > 0 ? (all[next] - step) / (all[next] - all[next - 1]) : 0;
      return (((next < 0 ? all.length - 1 : next) - part) / Math.max(all.length - 1, 1)) * 1000;
    };
    const points = state.run?.scalars[scalar.value] ?? [],
      values = points.flatMap(([, value]) => value ?? []),
      [low, high] = [Math.min(...values), Math.max(...values)];
    // A value that is no number leaves a gap.
    const line = points.map(([step, value], n) => (value === null ? "" : `${points[n - 1]?.[1] == null ? "M" : "L"}${x(step)} ${30 - ((value - low) / (high - low || 1)) * 28}`)),
      marks = (state.run?.events ?? []).map(({ step, kind }) => svg("path", { d: `M${x(step)} 0V32`, "data-kind": kind }));
    fill(byId("curve"), ...marks, svg("path", { d: line.join("") }));
  }

  /** What changes with the step. */
  function say() {
    const { run, step, playing } = state;
    if (!run) return;
    const here = run.steps.indexOf(step);
    slider.max = String(run.steps.length - 1);
    slider.value = String(here);
    slider.setAttribute("aria-valuetext", `step ${step}`);
    other.value = String(state.against);
    const button = byId("play");
    button.textContent = playing ? "❚❚" : "▶";
    button.setAttribute("aria-label", playing ? "pause" : "play");
    byId("follow").setAttribute("aria-pressed", String(state.follow));
    const [time, name] = [run.times[here], scalar.value],
      value = run.scalars[name]?.findLast(([one]) => one <= step)?.[1];
    fill(byId("step-said"), h("b", `step ${step}`), name && ` · ${name} ${num(value)}`, quiet(` · ${here + 1} of ${run.steps.length}${time ? ` · ${new Date(time * 1000).toLocaleTimeString([], { timeStyle: "short" })}` : ""}`));
    curve();
  }

  /** To the layer and the channel of an event, at its step. @param {RunEvent} event */
  function seek({ step, kind, layer, channels }) {
    const keys = [...(kind === "dead" ? [] : [`${layer}/grad`]), layer, `${layer}/batch`],
      key = keys.find((one) => state.rows.some((row) => row.key === one));
    go(nearestOf(steps(), step, true), key ? { ...TOP, layer: key, channel: channels[0] ?? -1 } : {});
    byId("events").removeAttribute("open");
  }

  store.on("step against", show);
  store.on("run", build);
  store.on("step against follow playing", say);
  on(slider, "input", () => go(steps()[Number(slider.value)]));
  // Then the keys are the sheet's again: a select takes letters and digits for itself.
  for (const select of [other, scalar]) on(select, "change", () => (select.blur(), store.set({ against: Number(other.value) }), say()));
  clicked("play", play);
  clicked("follow", follow);
  // The next one when this one is on the screen: slow data makes it slow, and leaves nothing out.
  setInterval(() => state.playing && state.index?.step === state.step && move(1), PLAY_MS);
  return { read, move, play, follow };
}

/** The last one up to here, or the first from here on. @param {number[]} steps @param {number} step @param {boolean} [after] */
function nearestOf(steps, step, after) {
  return (after ? steps.find((one) => one >= step) : steps.findLast((one) => one <= step)) ?? steps[after ? steps.length - 1 : 0];
}

/** Two steps as a comparison. @param {Index} a @param {Index} b @returns {Index} */
function paired(a, b) {
  const of = (/** @type {Index} */ { layers }, /** @type {string} */ side) => layers.map((layer) => ({ ...layer, side }));
  return { ...a, kind: "compare", compares: true, subject: `step ${a.step}`, subject_b: `step ${b.step}`, layers: [...of(a, "a"), ...of(b, "b")], at: `@${a.step}~${b.step}` };
}
