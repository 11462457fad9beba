/* Help of the model besides the mask of the clicks: other masks, its uncertainty, and a start without a click. */

import { api } from "./api.js";
import { maskOf, voxelCount } from "./crop.js";
import { sentPrompts, withChoice } from "./layer.js";

/** @typedef {import("./crop.js").Crop} Crop */
/** @typedef {import("./crop.js").Voxel} Voxel */
/** @typedef {{name: string, predictedDice: number | null, voxels: number, mask: Crop | null, choice: import("./layer.js").Choice | null}} Option */

export class Assist {
  /** @param {import("./session.js").Session} session */
  constructor(session) {
    this.session = session;
    /** Where the next click helps most. @type {Voxel | null} */
    this.suggestion = null;
    this.isUncertaintyShown = false;
    /** Masks to choose from, the present one first. @type {Option[]} */
    this.choices = [];
    this.chosen = 0;
    /** Requests that run. */
    this.running = 0;
    /** The question about the present mask. */
    this.question = new AbortController();
  }

  /** Drop what belonged to an earlier mask. */
  forget() {
    this.question.abort();
    this.suggestion = null;
    this.isUncertaintyShown = false;
    this.choices = [];
    this.chosen = 0;
    if (this.session.viewer.heat) this.session.viewer.hideHeat();
  }

  /**
   * Ask the model about the active label's prompts, once their mask is there; an action or another question ends this.
   * @param {"candidates" | "uncertainty"} result
   * @param {Partial<import("./layer.js").Layer>} [changed] prompts that differ
   */
  async #ask(result, changed = {}) {
    const { session } = this;
    this.question.abort();
    this.question = new AbortController();
    const { signal } = this.question;
    await session.answered();
    signal.throwIfAborted();
    const params = { ...sentPrompts({ ...session.layer, ...changed }), label: session.active, result };
    const answer = await this.#working(api.infer("sam3d", session.opened, params, signal));
    signal.throwIfAborted();
    if (answer.params.ignored_candidate) session.observer.failed(answer.params.ignored_candidate);
    return answer;
  }

  /** @template T @param {Promise<T>} work @returns {Promise<T>} */
  async #working(work) {
    this.running += 1;
    this.session.reportWork();
    try {
      return await work;
    } finally {
      this.running -= 1;
      this.session.reportWork();
    }
  }

  /** Request other masks that the prompts may mean. */
  async findChoices() {
    const { session } = this;
    const { params, file } = await this.#ask("candidates", { choice: null });
    const { foreground, background, roi, model, choice } = session.layer;
    const box = params.crop_box;
    const others = (params.candidates ?? []).map(({ value, predicted_dice: predictedDice, voxels }, at) => ({
      name: `Candidate ${at + 1}`, predictedDice, voxels, choice: { foreground, background, roi, number: at, version: params.model_version ?? "" },
      mask: box ? maskOf({ box, data: file.data }, (voxel) => Boolean(voxel & value)) : null,
    }));
    this.choices = [{ name: "Mask", predictedDice: null, voxels: voxelCount(model), mask: model, choice }, ...others];
    this.chosen = 0;
    session.observer.changed();
  }

  /** Take one of the masks; the next clicks correct it. @param {number} number */
  choose(number) {
    const { session, choices } = this;
    const option = choices[number];
    if (!option || number === this.chosen) return;
    session.act(withChoice(session.layer, option.mask, option.choice), "candidate");
    this.choices = choices;
    this.chosen = number;
    session.observer.changed();
  }

  /** Show or hide where the mask is uncertain, and suggest the next click. */
  async toggleUncertainty() {
    const { session } = this;
    if (this.isUncertaintyShown) this.forget();
    else {
      const { params, file } = await this.#ask("uncertainty");
      const { layer } = session;
      if (params.crop_box) await session.viewer.showHeat(params.crop_box, /** @type {Float32Array} */ (file.data));
      if (session.layer !== layer) return this.forget();
      this.isUncertaintyShown = true;
      this.suggestion = params.next_click ?? null;
      if (this.suggestion) session.viewer.moveTo(this.suggestion);
    }
    session.observer.changed();
  }

  /**
   * Segment without a click, as a start.
   * @param {(fraction: number) => void} progress
   * @returns {Promise<number>} voxels that were found
   */
  async findAll(progress) {
    const { session } = this;
    const { opened: image, opening: { signal } } = session;
    const watch = setInterval(() => {
      api.progress("sam3d_auto", image).then(({ done, total }) => total && progress((done ?? 0) / total), () => {});
    }, 700);
    try {
      const { params, file } = await this.#working(api.infer("sam3d_auto", image, {}, signal));
      signal.throwIfAborted();
      const [name] = Object.keys(params.label_names);
      const box = params.crop_box;
      const base = box ? maskOf({ box, data: file.data }, Boolean) : null;
      if (session.layers.has(name)) session.activate(name);
      await session.act({ ...session.layer, base }, "found automatically");
      return voxelCount(base);
    } finally {
      clearInterval(watch);
    }
  }
}
