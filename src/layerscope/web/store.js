// The one place where the state of the page lives. Components read it, ask it to change, and hear of changes.

import { TOP } from "./rows.js";

export class Store {
  /** @param {State} state */
  constructor(state) {
    this.state = state;
    /** @type {{keys: Set<string>, hear: (state: State) => void}[]} */
    this.listeners = [];
  }

  /** Change some fields; those who listen to one of them hear of it once. @param {Partial<State>} patch */
  set(patch) {
    const changed = Object.keys(patch).filter((key) => !Object.is(Reflect.get(this.state, key), Reflect.get(patch, key)));
    if (!changed.length) return;
    Object.assign(this.state, patch);
    for (const { keys, hear } of [...this.listeners]) if (changed.some((key) => keys.has(key))) hear(this.state);
  }

  /** To a layer, of which nothing is chosen yet. @param {string} layer */
  open(layer) {
    this.set({ layer, ...TOP });
  }

  /** @param {string} keys names of fields, with spaces between them @param {(state: State) => void} hear @returns {() => void} stops listening */
  on(keys, hear) {
    const listener = { keys: new Set(keys.split(" ")), hear };
    this.listeners.push(listener);
    return () => {
      this.listeners = this.listeners.filter((other) => other !== listener);
    };
  }
}
