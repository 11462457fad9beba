/* The open case: its labels, what was clicked and drawn, and their masks. It knows nothing of buttons and panels. */

import { ApiError, api } from "./api.js";
import { Assist } from "./assist.js";
import { maskOf, voxelCount } from "./crop.js";
import { isSameGrid } from "./grid.js";
import { History } from "./history.js";
import { LabelMap } from "./labelmap.js";
import * as layers from "./layer.js";
import { gzip, labelHeader } from "./nifti.js";
import { identityOf, recordOf, restoredLayer } from "./record.js";
import { presets } from "./windows.js";

/** @typedef {import("./api.js").View} View */
/** @typedef {import("./crop.js").Box} Box */
/** @typedef {import("./crop.js").Crop} Crop */
/** @typedef {import("./crop.js").Voxel} Voxel */
/** @typedef {import("./layer.js").Layer} Layer */
/** @typedef {import("./viewer.js").Viewer} Viewer */
/** @typedef {{name: string, value: number, colour: [number, number, number], hidden: boolean}} Label */
/** @typedef {{total: number, server: number, drawing: number}} Timing Seconds: click to screen, in the server, and from the answer to the screen. */

/** Colours that can be distinguished on grey images, also with most colour vision deficiencies. @type {[number, number, number][]} */
const COLOURS = [
  [255, 122, 69], [86, 180, 233], [240, 228, 66], [204, 121, 167], [0, 190, 140],
  [190, 150, 255], [255, 170, 200], [150, 220, 90], [120, 160, 255], [222, 184, 135],
];

/** Status of answers after which the same request may succeed: the click stays. */
const PASSING = new Set([0, 401, 409, 429, 503]);

export class Session {
  /**
   * @param {Viewer} viewer
   * @param {{changed: () => void, failed: (message: string) => void, working: (isWorking: boolean) => void}} observer
   */
  constructor(viewer, observer) {
    this.viewer = viewer;
    this.observer = observer;
    /** @type {string | null} */
    this.image = null;
    /** @type {View | null} */
    this.view = null;
    /** @type {Label[]} */
    this.labels = [];
    /** @type {Map<string, Layer>} */
    this.layers = new Map();
    this.history = new History();
    /** @type {LabelMap | null} */
    this.map = null;
    this.active = "";
    this.isDirty = false;
    this.isSaved = false;
    /** Identity of the saved label as it was read or written here last. */
    this.savedAs = "";
    this.assist = new Assist(this);
    /** @type {Timing | null} */
    this.timing = null;
    /** Requests for masks, by label. @type {Map<string, AbortController>} */
    this.requests = new Map();
    /** Settled when all of them have ended. @type {Promise<void>} */
    this.pending = Promise.resolve();
    /** @type {ArrayBuffer | null} */
    this.header = null;
    /** Ends when the case is left. */
    this.opening = new AbortController();
  }

  /** @param {string[]} names of the server's labels */
  setLabels(names) {
    this.labels = names.map((name, at) => newLabel(name, at + 1));
    this.active = names[0] ?? "";
    this.layers = new Map(names.map((name) => [name, layers.EMPTY]));
  }

  /**
   * Open an image, with its final label if it has one.
   * @param {string} image
   * @param {string[]} names of the server's labels
   * @param {(fraction: number | null) => void} progress
   */
  async open(image, names, progress) {
    this.close();
    const { signal } = this.opening;
    try {
      await this.#load(image, names, progress, signal);
    } catch (error) {
      signal.throwIfAborted(); // another case is being opened, and is not to be closed
      this.close();
      throw error;
    }
  }

  /** @param {string} image @param {string[]} names @param {(fraction: number | null) => void} progress @param {AbortSignal} signal */
  async #load(image, names, progress, signal) {
    const [view, content] = await Promise.all([api.view(image), api.volume(image, progress, signal)]);
    signal.throwIfAborted();
    await this.viewer.open(content, presets(view)[0]);
    signal.throwIfAborted();
    this.setLabels(names);
    this.map = new LabelMap(/** @type {import("./grid.js").Grid} */ (this.viewer.grid));
    await this.#restore(image, view, signal);
    Object.assign(this, { image, view, header: labelHeader(content) });
    this.#showColours();
    this.viewer.showLabels(this.map.voxels);
    this.#goToLabel();
    this.observer.changed();
  }

  /** Move the crosshair to a saved label: its first click, or the middle of its box. */
  #goToLabel() {
    const [layer] = [...this.layers.values()].filter((each) => !layers.isEmpty(each));
    const box = layer && (layer.model ?? layer.base)?.box;
    if (!box) return;
    const middle = /** @type {Voxel} */ ([0, 2, 4].map((edge) => Math.floor((box[edge] + box[edge + 1]) / 2)));
    this.viewer.moveTo(layer.foreground[0] ?? middle);
  }

  close() {
    this.opening.abort();
    this.opening = new AbortController();
    for (const request of this.requests.values()) request.abort();
    this.requests.clear();
    Object.assign(this, { image: null, view: null, map: null, header: null });
    this.assist.forget();
    Object.assign(this, { isDirty: false, isSaved: false, timing: null });
    this.history = new History();
    this.viewer.close();
    this.reportWork();
    this.observer.changed();
  }

  /** @param {string} image @param {View} view @param {AbortSignal} signal */
  async #restore(image, view, signal) {
    const grid = /** @type {import("./grid.js").Grid} */ (this.viewer.grid);
    const saved = await api.savedLabel(image);
    signal.throwIfAborted();
    const record = saved && (await api.labelRecord(image));
    signal.throwIfAborted();
    this.isSaved = saved !== null;
    this.savedAs = identityOf(record);
    const box = saved?.params.crop_box;
    if (!saved || !box) return;
    if (!isSameGrid(saved.params, view)) throw new Error("The saved label has another grid than its image, so it cannot be shown on it.");
    const prompts = record?.params?.prompts ?? {};
    for (const [name, value] of Object.entries(saved.params.label_names)) {
      const mask = maskOf({ box, data: saved.file.data }, (voxel) => voxel === value);
      if (!voxelCount(mask)) continue;
      if (!this.layers.has(name)) this.labels.push(newLabel(name, this.#freeValue()));
      this.display(name, restoredLayer(mask, prompts[name], grid));
    }
  }

  #freeValue() {
    return Math.max(0, ...this.labels.map((label) => label.value)) + 1;
  }

  /** The active label's layer. */
  get layer() {
    return this.layers.get(this.active) ?? layers.EMPTY;
  }

  /** @param {string} name */
  activate(name) {
    if (name === this.active) return;
    this.active = name;
    this.assist.forget();
    this.observer.changed();
  }

  /** @param {string} name */
  toggle(name) {
    this.labels = this.labels.map((label) => (label.name === name ? { ...label, hidden: !label.hidden } : label));
    this.#showColours();
    this.observer.changed();
  }

  #showColours() {
    /** @type {([number, number, number] | null)[]} */
    const colours = [];
    for (const { value, colour, hidden } of this.labels) colours[value - 1] = hidden ? null : colour;
    this.viewer.setColours(Array.from(colours, (colour) => colour ?? null));
  }

  /** Voxels of a label. @param {string} name */
  voxels(name) {
    const layer = this.layers.get(name);
    return layer && this.viewer.grid ? voxelCount(layers.maskOfLayer(layer, this.viewer.grid)) : 0;
  }

  // Prompts

  /** @param {Voxel} ijk @param {boolean} inside */
  click(ijk, inside) {
    const { layer } = this;
    const after = layers.withClick(layer, ijk, inside);
    if (!inside && after.base === layer.base && !layer.foreground.length && !layer.roi) {
      this.observer.failed("Click inside the target first: a click outside corrects a mask that is there.");
      return Promise.resolve();
    }
    return this.act(after, inside ? "click inside" : "click outside");
  }

  /** @param {Box | null} roi */
  setBox(roi) {
    return this.act({ ...this.layer, roi, choice: null }, roi ? "box" : "box removed");
  }

  /** Remove all of the active label. */
  async clear() {
    if (!layers.isEmpty(this.layer)) await this.act(layers.EMPTY, "cleared");
  }

  /**
   * Take brushed or erased voxels over.
   * @param {Iterable<number>} voxels indexes in the stored image
   * @param {boolean} inside
   */
  brush(voxels, inside) {
    return this.act(layers.withEdits(this.layer, voxels, inside), inside ? "brush" : "eraser");
  }

  /**
   * Make a new layer of the active label, as a step that can be undone, and show its mask.
   * @param {Layer} after
   * @param {string} what
   */
  act(after, what) {
    this.history.push({ label: this.active, before: this.layer, after, what });
    this.layers.set(this.active, after);
    this.isDirty = true;
    this.assist.forget();
    return this.#refresh(this.active);
  }

  undo() {
    return this.#step(this.history.undo(), (step) => step.before);
  }

  redo() {
    return this.#step(this.history.redo(), (step) => step.after);
  }

  /**
   * @param {import("./history.js").Step | null} step
   * @param {(step: import("./history.js").Step) => Layer} wanted
   */
  async #step(step, wanted) {
    if (!step) return;
    this.active = step.label;
    this.assist.forget();
    this.isDirty = true;
    this.display(step.label, wanted(step));
    await this.#refresh(step.label);
  }

  // Masks

  /** Show the mask of a label's prompts, and request it if it is not there yet. @param {string} name */
  async #refresh(name) {
    this.requests.get(name)?.abort(); // its answer would be the mask of an earlier layer
    const layer = this.layers.get(name) ?? layers.EMPTY;
    const isAnswered = layers.isCurrent(layer);
    const isAsked = !isAnswered && (layer.foreground.length > 0 || layer.roi !== null);
    if (isAnswered) this.display(name, layer);
    else if (!isAsked) this.#finish(name, layer, layers.withModel(layer, null));
    if (!isAsked) return this.observer.changed();
    const request = this.#segment(name, layer);
    this.pending = Promise.all([this.pending, request]).then(() => {});
    this.observer.changed();
    await request;
  }

  /** Request the masks again after an error that passes. */
  async retry() {
    await Promise.all(this.behind.map((name) => this.#refresh(name)));
  }

  /** Report whether answers of the server are awaited. */
  reportWork() {
    this.observer.working(this.requests.size + this.assist.running > 0);
  }

  /** @param {string} name @param {Layer} layer */
  async #segment(name, layer) {
    const request = new AbortController();
    this.requests.set(name, request);
    const began = performance.now();
    this.reportWork();
    try {
      const separated = layer.restored ? await this.#separate(name, layer, request.signal) : layer;
      const { params, mask } = await this.#mask(name, separated, request.signal);
      const answered = performance.now();
      if (request.signal.aborted) return;
      const ignored = params.ignored_candidate;
      this.#finish(name, layer, layers.withChoice(separated, mask, ignored ? null : separated.choice));
      if (ignored) this.observer.failed(ignored);
      await this.viewer.frame();
      const now = performance.now();
      const seconds = (/** @type {number} */ milliseconds) => milliseconds / 1000;
      this.timing = { total: seconds(now - began), server: params.latencies?.total ?? 0, drawing: seconds(now - answered) };
    } catch (error) {
      if (!request.signal.aborted) this.#fail(name, layer, error);
    } finally {
      if (this.requests.get(name) === request) {
        this.requests.delete(name);
        this.reportWork();
        this.observer.changed();
      }
    }
  }

  /** @param {string} name @param {layers.Prompts} prompts @param {AbortSignal} signal */
  async #mask(name, prompts, signal) {
    const { params, file } = await api.infer("sam3d", this.opened, { ...layers.sentPrompts(prompts), label: name }, signal);
    return { params, mask: params.crop_box ? maskOf({ box: params.crop_box, data: file.data }, Boolean) : null };
  }

  /** Distinguish brush strokes in a saved label from the model's mask, where they were not saved as such. @param {string} name @param {Layer} layer @param {AbortSignal} signal */
  async #separate(name, layer, signal) {
    const { mask } = await this.#mask(name, layers.promptsOfKey(layer.modelOf), signal);
    return layers.separateEdits(layer, mask, /** @type {import("./grid.js").Grid} */ (this.viewer.grid));
  }

  /** The open image. */
  get opened() {
    if (!this.image) throw new Error("No case is open");
    return this.image;
  }

  /** @param {string} name @param {Layer} before @param {Layer} after */
  #finish(name, before, after) {
    this.history.amend(name, before, after);
    this.layers.set(name, after);
    this.display(name, after);
  }

  /** @param {string} name @param {Layer} layer @param {unknown} error */
  #fail(name, layer, error) {
    const passes = error instanceof ApiError && PASSING.has(error.status);
    const latest = this.history.done.at(-1);
    if (!passes && latest?.label === name && latest.after === layer) {
      this.history.undo();
      this.history.undone = [];
      this.display(name, latest.before);
    }
    const reason = error instanceof Error ? error.message : String(error);
    this.observer.failed(passes ? `${reason} The mask does not show the latest click yet.` : reason);
  }

  /** Put a label's layer on the screen. @param {string} name @param {Layer} layer */
  display(name, layer) {
    const label = this.labels.find((each) => each.name === name);
    const { grid } = this.viewer;
    if (!label || !grid || !this.map) return;
    this.layers.set(name, layer);
    const changed = this.map.set(label.value, layers.maskOfLayer(layer, grid));
    if (changed) this.viewer.showLabels(this.map.voxels, changed);
  }

  /** Labels whose mask on the screen is not that of their prompts, without a request for it. @returns {string[]} */
  get behind() {
    return [...this.layers].filter(([name, layer]) => !this.requests.has(name) && !layers.isCurrent(layer)).map(([name]) => name);
  }

  /** Wait for the masks of all clicks. */
  async answered() {
    while (this.requests.size) await this.pending;
  }

  // Saving

  /** Save all labels as the final label of the image, with the prompts, so that it can be opened again. */
  async save() {
    const { map, header, image } = this;
    if (!map || !header || !image) return;
    await this.answered();
    const [behind] = this.behind;
    if (behind) throw new Error(`The mask of ${behind} does not show the latest click yet: try again, or undo it, then save.`);
    const history = this.history.done.at(-1);
    const used = this.labels.filter(({ name }) => this.voxels(name));
    const prompts = Object.fromEntries(used.map((label) => [label.name, this.#record(label, map)]));
    const file = await gzip([header, map.stored().buffer]);
    const named = used.length ? used : this.labels.slice(0, 1);
    await api.save(image, file, {
      label_info: named.map(({ name, value, colour }) => ({ name, idx: value, color: colour })),
      params: { prompts },
    });
    if (this.image !== image) return;
    this.isSaved = true;
    if (this.history.done.at(-1) === history) this.isDirty = false;
    this.observer.changed();
    const savedAs = identityOf(await api.labelRecord(image));
    if (this.image === image) this.savedAs = savedAs;
  }

  /** Whether somebody else, or another window, has saved a label of the image since it was read or written here. */
  async isSavedElsewhere() {
    const savedAs = identityOf(await api.labelRecord(this.opened));
    return savedAs !== "" && savedAs !== this.savedAs;
  }

  /** @param {Label} label @param {LabelMap} map */
  #record({ name, value }, { grid, voxels }) {
    return recordOf(this.layers.get(name) ?? layers.EMPTY, grid, (ijk) => voxels[grid.index(ijk)] === value);
  }
}

/** @param {string} name @param {number} value @returns {Label} */
const newLabel = (name, value) => ({ name, value, colour: COLOURS[(value - 1) % COLOURS.length], hidden: false });
