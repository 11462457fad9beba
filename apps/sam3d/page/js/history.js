/* Undo and redo: the layer of a label before and after each action. */

/** @typedef {import("./layer.js").Layer} Layer */
/** @typedef {{label: string, before: Layer, after: Layer, what: string}} Step */

const MOST_STEPS = 200;
/** Bytes of masks that are kept for undo. */
const MOST_BYTES = 256 * 2 ** 20;

export class History {
  constructor() {
    /** @type {Step[]} */
    this.done = [];
    /** @type {Step[]} */
    this.undone = [];
  }

  /** @param {Step} step */
  push(step) {
    this.done.push(step);
    this.undone = [];
    while (this.done.length > MOST_STEPS || (this.done.length > 1 && this.#bytes() > MOST_BYTES)) this.done.shift();
  }

  /**
   * Replace the layer after the latest action on a label, when its mask has arrived.
   * @param {string} label
   * @param {Layer} before the layer without the mask
   * @param {Layer} after
   */
  amend(label, before, after) {
    for (const steps of [this.done, this.undone])
      for (const step of steps) {
        if (step.label === label && step.after === before) step.after = after;
        if (step.label === label && step.before === before) step.before = after;
      }
  }

  /** @returns {Step | null} the step whose `before` is to be shown */
  undo() {
    const step = this.done.pop() ?? null;
    if (step) this.undone.push(step);
    return step;
  }

  /** @returns {Step | null} the step whose `after` is to be shown */
  redo() {
    const step = this.undone.pop() ?? null;
    if (step) this.done.push(step);
    return step;
  }

  #bytes() {
    const masks = new Set(this.done.flatMap(({ before, after }) => [before.model, before.base, after.model, after.base]));
    let bytes = 0;
    for (const mask of masks) bytes += mask?.data.length ?? 0;
    return bytes + 40 * this.done.reduce((sum, step) => sum + step.after.edits.size, 0);
  }
}
