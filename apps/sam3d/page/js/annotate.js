/* Buttons, keys and the pointer of the part that annotates. */

import { keepAndShow, show, wantedImage } from "./address.js";
import { ApiError } from "./api.js";
import { boxOf, brushed } from "./brush.js";
import { Cases } from "./cases.js";
import { $, confirmed, make, once } from "./dom.js";
import { drawMarks } from "./overlay.js";
import { showCase } from "./panel.js";
import { listen } from "./pointer.js";
import { Session } from "./session.js";
import { control, isBare, listenToKeys, plain } from "./shortcuts.js";
import { Viewer } from "./viewer.js";
import { presets } from "./windows.js";

/** @typedef {import("./crop.js").Box} Box */
/** @typedef {import("./crop.js").Voxel} Voxel */
/** @typedef {import("./pointer.js").Tool} Tool */
/** @typedef {import("./viewer.js").Spot} Spot */

const TOOLS = /** @type {Tool[]} */ (["inside", "outside", "box", "brush", "eraser", "look"]);
/** How often the list of cases is read, for the labels of others. */
const CASES_MS = 30_000;
/** Width up to which the list of cases closes once a case is open. */
const NARROW = "(max-width: 1000px)";

export class Annotator {
  /**
   * @param {(message: string) => void} complain about an action
   * @param {(message: string) => void} warn about a mask that is not that of its clicks, as long as it is so
   */
  constructor(complain, warn) {
    this.complain = complain;
    this.warn = warn;
    this.viewer = new Viewer($("volume"));
    this.session = new Session(this.viewer, {
      changed: () => this.show(),
      failed: complain,
      working: (isWorking) => ($("working").hidden = !isWorking),
    });
    this.cases = new Cases((image, why) => this.guard(() => this.open(image, why)));
    /** @type {Tool} */
    this.tool = "inside";
    /** @type {string[]} */
    this.labels = [];
    this.abilities = { hasCandidates: false, automatic: /** @type {string | null} */ (null) };
    /** @type {{box: Box, across: number, before: Box | null} | null} the box being dragged */
    this.dragged = null;
    /** Stored axis across the plane in which the box was begun. */
    this.boxAcross = -1;
    /** @type {Map<number, Voxel>} voxels of the stroke that is being drawn */
    this.stroke = new Map();
    /** @type {{x: number, y: number, spot: Spot} | null} */
    this.pointer = null;
    this.radius = 4;
    this.save = once(() => this.#save());
    this.saveAndNext = once(() => this.#saveAndNext());
  }

  /** @param {any} info the answer of `/info/` */
  async start(info) {
    this.labels = info.labels;
    this.session.setLabels(this.labels);
    this.cases.setStrategies(info.strategies);
    await this.viewer.start();
    this.viewer.onDraw.push(() => this.#drawMarks());
    this.#bindButtons();
    this.#bindPointer();
    this.#bindKeys();
    window.addEventListener("beforeunload", (event) => {
      if (this.session.isDirty) event.preventDefault();
    });
    await this.cases.reload();
    this.show();
  }

  /** @param {any} state the answer of `/sam3d/state` */
  setState(state) {
    this.abilities = { hasCandidates: state.serving.candidates > 0, automatic: state.serving.automatic };
    $("ohif").hidden = !state.pacs;
    if (Date.now() - this.cases.readAt > CASES_MS) this.cases.reload().catch(() => {}); // the state reports the error
    this.show();
  }

  /** Run an action, and show its error in the page. @param {() => unknown} action */
  async guard(action) {
    try {
      this.complain("");
      await action();
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") return;
      if (!(error instanceof ApiError)) console.error(error);
      this.complain(error instanceof Error ? error.message : String(error));
      this.show();
    }
  }

  show() {
    const { behind } = this.session;
    this.warn(behind.length ? `The mask of ${behind.join(" and ")} does not show the latest click yet.` : "");
    showCase(this.session, this.session.image ? this.cases.nameOf(this.session.image) : null, this.abilities);
    const study = this.session.view?.study;
    if (study) {
      $("case-ohif").href = `../ohif/monai-label?StudyInstanceUIDs=${encodeURIComponent(study)}`;
      $("case-ohif").hidden = false;
    }
    this.viewer.redraw();
  }

  /** @param {string} text for people who cannot see the screen, and at its bottom */
  say(text) {
    $("announce").textContent = text;
  }

  // Cases

  /** @param {string} image @param {string} [why] */
  async open(image, why = "") {
    if (!(await this.#mayLeave())) return;
    this.#cancel();
    $("why").textContent = why;
    $("welcome").hidden = false;
    $("welcome-title").textContent = this.cases.nameOf(image);
    $("welcome-text").textContent = "Loading the image…";
    $("loading").hidden = false;
    $("loading").removeAttribute("value");
    this.cases.setCurrent(image);
    if (matchMedia(NARROW).matches) this.cases.expand(false);
    try {
      await this.session.open(image, this.labels, (fraction) => {
        if (fraction !== null) $("loading").value = fraction;
      });
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      this.cases.setCurrent("");
      $("welcome-title").textContent = "This case cannot be opened";
      $("welcome-text").textContent = error instanceof Error ? error.message : String(error);
      $("loading").hidden = true;
      throw error;
    }
    $("welcome").hidden = true;
    $("loading").hidden = true;
    this.#showWindows();
    keepAndShow(image);
    if (this.viewer.isSlowIn3D && $("layout").value === "all") {
      $("layout").value = "planes";
      this.viewer.setLayout("planes");
      this.say("Without a graphics card, 3D of this image is slow: choose it in the list of views.");
    } else this.say(`${this.cases.nameOf(image)} is open`);
    $("marks").focus({ preventScroll: true });
  }

  /** Open the case that the address names; it names the open one again if that is not left. */
  async follow() {
    if ($("confirm").open) return;
    const image = wantedImage();
    if (image && image !== this.cases.current) await this.guard(() => this.open(image));
    if (this.session.image && image !== this.session.image) show(this.session.image);
  }

  async #mayLeave() {
    if (!this.session.isDirty) return true;
    const question = `The changes of ${this.session.image} are not saved. Leave them?`;
    return confirmed(question, "Leave without saving");
  }

  #showWindows() {
    const view = this.session.view;
    if (!view) return;
    const windows = presets(view);
    $("window").replaceChildren(...windows.map(({ name }, at) => make("option", { value: String(at) }, name)));
    $("window").disabled = false;
  }

  #applyWindow() {
    const view = this.session.view;
    const chosen = view && presets(view)[Number($("window").value)];
    if (chosen) this.viewer.setWindow(chosen.low, chosen.high);
  }

  async #save() {
    const { session } = this;
    await session.answered();
    const question = `Another person, or another window, has saved a label of ${session.image} since it was opened here. Replace that label?`;
    if ((await session.isSavedElsewhere()) && !(await confirmed(question, "Replace the label"))) return false;
    const isEmpty = session.labels.every(({ name }) => !session.voxels(name));
    if (isEmpty && !(await confirmed(`Save an empty label? It says that ${session.image} shows no ${this.labels.join(" and no ")}.`, "Save the empty label")))
      return false;
    await session.save();
    this.say(`The label of ${session.image} is saved`);
    await this.cases.reload();
    return true;
  }

  async #saveAndNext() {
    if (await this.save()) await this.cases.next();
  }

  // Tools

  /** @param {Tool} tool */
  use(tool) {
    this.tool = tool;
    for (const button of document.querySelectorAll("[data-tool]"))
      button.setAttribute("aria-checked", String(/** @type {HTMLElement} */ (button).dataset.tool === tool));
    $("brush-settings").hidden = tool !== "brush" && tool !== "eraser";
    $("marks").style.cursor = tool === "look" ? "grab" : tool === "brush" || tool === "eraser" ? "none" : "crosshair";
    this.viewer.redraw();
  }

  /** @param {number} radius mm */
  setRadius(radius) {
    this.radius = Math.min(30, Math.max(1, radius));
    $("radius").value = String(this.radius);
    $("radius-text").textContent = `${this.radius} mm`;
    this.viewer.redraw();
  }

  /** @param {Spot} from @param {Spot} to @param {boolean} done */
  #dragBox(from, to, done) {
    const { grid, spacing } = this.viewer;
    if (!grid) return;
    const across = grid.axes[from.plane];
    const roi = this.session.layer.roi;
    const isOther = roi !== null && this.boxAcross >= 0 && this.boxAcross !== across;
    const box = boxOf(grid, spacing, from.ijk, to.ijk, across, isOther ? roi : null);
    this.dragged = done ? null : { box, across, before: roi };
    this.viewer.redraw();
    if (!done) return;
    const isClick = [0, 1, 2].every((axis) => axis === across || box[2 * axis + 1] - box[2 * axis] < 2);
    if (isClick) this.say("Drag to draw a box.");
    else {
      if (!isOther) this.boxAcross = across;
      this.guard(() => this.session.setBox(box));
    }
  }

  /** @param {Spot} from @param {Spot} to @param {boolean} done @param {boolean} inside */
  #paint(from, to, done, inside) {
    const { session, viewer } = this;
    const { grid, spacing } = viewer;
    const label = session.labels.find(({ name }) => name === session.active);
    if (!grid || !session.map || !label) return;
    const across = $("ball").checked ? null : grid.axes[from.plane];
    const voxels = brushed(grid, spacing, from.ijk, to.ijk, this.radius, across);
    for (const voxel of voxels) this.stroke.set(grid.storedIndex(voxel), voxel);
    viewer.showLabels(session.map.voxels, session.map.paint(label.value, voxels, inside));
    if (!done) return;
    const indexes = [...this.stroke.keys()];
    this.stroke.clear();
    session.brush(indexes, inside);
  }

  /** Drop the box or the stroke that is being drawn. */
  #cancel() {
    const { session } = this;
    this.dragged = null;
    this.stroke.clear();
    session.display(session.active, session.layer);
    this.viewer.redraw();
  }

  #drawMarks() {
    const { session, viewer, pointer } = this;
    const { foreground, background, roi } = session.layer;
    const isPainting = this.tool === "brush" || this.tool === "eraser";
    const brush = isPainting && pointer ? { x: pointer.x, y: pointer.y, radius: this.#brushPixels(pointer) } : null;
    const box = this.dragged ? this.dragged.box : roi;
    const shown = viewer.grid && session.image ? { foreground, background, roi: box, suggestion: session.assist.suggestion, brush } : null;
    drawMarks($("marks"), viewer, shown ?? { foreground: [], background: [], roi: null, suggestion: null, brush: null });
    if (!viewer.grid || !session.image) $("where").textContent = "";
    else {
      const at = pointer?.spot.ijk ?? viewer.place;
      const value = viewer.intensity(at);
      $("where").textContent = `voxel ${at.join(", ")} · ${Number.isInteger(value) ? value : value.toFixed(3)}`;
    }
  }

  /** @param {{spot: Spot}} pointer */
  #brushPixels({ spot: { ijk, tile, plane } }) {
    const { grid, spacing } = this.viewer;
    const axis = grid?.axes[plane === 0 ? 1 : 0] ?? 0;
    const next = /** @type {Voxel} */ (ijk.map((at, other) => (other === axis ? at + 1 : at)));
    const [one, two] = [this.viewer.project(ijk, tile), this.viewer.project(next, tile)];
    return one && two ? (this.radius * Math.hypot(one.x - two.x, one.y - two.y)) / spacing[axis] : 0;
  }

  #bindPointer() {
    const { session, viewer } = this;
    listen($("marks"), viewer, {
      tool: () => this.tool,
      click: ({ ijk }, inside) => this.guard(() => session.click(ijk, inside)),
      box: (from, to, done) => this.#dragBox(from, to, done),
      stroke: (from, to, done, inside) => this.#paint(from, to, done, inside),
      cancel: () => this.#cancel(),
      hover: (pointer) => {
        this.pointer = pointer;
        if (viewer.grid) this.#drawMarks();
      },
      window: (low, high) => viewer.setWindow(low, high),
    });
  }

  #bindButtons() {
    const { session, viewer } = this;
    const on = (/** @type {string} */ id, /** @type {() => unknown} */ action) =>
      $(id).addEventListener("click", () => this.guard(action));
    on("undo", () => session.undo());
    on("redo", () => session.redo());
    on("clear", () => session.clear());
    on("save", () => this.save());
    on("save-next", () => this.saveAndNext());
    on("next-case", () => this.cases.next());
    on("retry", () => session.retry());
    on("candidates", () => session.assist.findChoices());
    on("uncertainty", () => session.assist.toggleUncertainty());
    on("auto", () => this.#findAll());
    on("fill", () => this.#toggleFill());
    on("zoom-in", () => viewer.zoom(1.25));
    on("zoom-out", () => viewer.zoom(0.8));
    on("zoom-reset", () => viewer.resetZoom());
    $("window").addEventListener("change", () => this.#applyWindow());
    $("layout").addEventListener("change", () => viewer.setLayout($("layout").value));
    $("radius").addEventListener("input", () => this.setRadius(Number($("radius").value)));
    this.#onChild("labels", ({ label, eye }) => (label ? session.activate(label) : eye && session.toggle(eye)));
    this.#onChild("choices", ({ choice }) => choice && session.assist.choose(Number(choice)));
    for (const button of document.querySelectorAll("[data-tool]"))
      button.addEventListener("click", () => this.use(/** @type {Tool} */ (/** @type {HTMLElement} */ (button).dataset.tool)));
  }

  /** @param {string} id @param {(data: DOMStringMap) => unknown} action */
  #onChild(id, action) {
    $(id).addEventListener("click", (/** @type {MouseEvent} */ event) => {
      const button = /** @type {HTMLElement} */ (event.target).closest("button");
      if (button) this.guard(() => action(button.dataset));
    });
  }

  async #findAll() {
    this.say("Searching the whole image…");
    const voxels = await this.session.assist.findAll((fraction) => this.say(`Searching the whole image: ${Math.round(100 * fraction)} %`));
    this.say(voxels ? "Found. Right click removes a region, a click inside segments it anew." : "Nothing was found without a click.");
  }

  #toggleFill() {
    const isShown = $("fill").getAttribute("aria-pressed") !== "true";
    $("fill").setAttribute("aria-pressed", String(isShown));
    this.viewer.showFill(isShown);
  }

  /** Go to the next option of a list. @param {string} id */
  #turnOver(id) {
    const list = $(id);
    list.selectedIndex = (list.selectedIndex + 1) % Math.max(1, list.options.length);
    list.dispatchEvent(new Event("change"));
    this.say(`${list.title.split(" (")[0]}: ${list.options[list.selectedIndex]?.text ?? ""}`);
  }

  /** Move the crosshair. @param {number} axis the viewer's @param {number} steps */
  #move(axis, steps) {
    this.pointer = null;
    this.viewer.scroll(axis, steps);
  }

  /** @param {boolean} inside */
  #clickAtCrosshair(inside) {
    if (this.session.image) this.guard(() => this.session.click(this.viewer.place, inside));
  }

  #bindKeys() {
    const { session, viewer } = this;
    const moves = /** @type {const} */ ({
      ArrowLeft: [0, 1], ArrowRight: [0, -1], ArrowUp: [1, 1], ArrowDown: [1, -1], PageUp: [2, 1], PageDown: [2, -1],
    });
    const move = (/** @type {KeyboardEvent} */ event) => {
      const [axis, steps] = moves[/** @type {keyof typeof moves} */ (event.key)];
      this.#move(axis, event.shiftKey ? 5 * steps : steps);
    };
    listenToKeys(
      [
        { keys: "1 … 6", does: "inside, outside, box, brush, eraser, look", matches: (event) => plain(event.key)(event) && /^[1-6]$/.test(event.key), run: (event) => this.use(TOOLS[Number(event.key) - 1]) },
        { keys: "Arrows, Page Up/Down", does: "crosshair (Shift: five voxels)", matches: (event) => event.key in moves && isBare(event), run: move },
        { keys: "Enter", does: "click inside at the crosshair", matches: plain("Enter", false), run: () => this.#clickAtCrosshair(true) },
        { keys: "Shift Enter", does: "click outside at the crosshair", matches: plain("Enter", true), run: () => this.#clickAtCrosshair(false) },
        { keys: "Ctrl Z", does: "undo", matches: control("z", false), run: () => this.guard(() => session.undo()) },
        { keys: "Ctrl Y, Ctrl Shift Z", does: "redo", matches: (event) => control("y")(event) || control("z", true)(event), run: () => this.guard(() => session.redo()) },
        { keys: "Alt 1 … 9", does: "label", matches: (event) => event.altKey && /^Digit[1-9]$/.test(event.code), run: (event) => this.#activate(Number(event.code.at(-1))) },
        { keys: "U", does: "uncertainty and next click", matches: plain("u"), run: () => $("uncertainty").click() },
        { keys: "C", does: "candidates", matches: plain("c"), run: () => $("candidates").click() },
        { keys: "H", does: "hide or show the masks", matches: plain("h"), run: () => this.#toggleFill() },
        { keys: "[ and ]", does: "radius of the brush", matches: (event) => event.key === "[" || event.key === "]", run: (event) => this.setRadius(this.radius + (event.key === "]" ? 1 : -1)) },
        { keys: "W", does: "next window", matches: plain("w"), run: () => this.#turnOver("window") },
        { keys: "V", does: "next view", matches: plain("v"), run: () => this.#turnOver("layout") },
        { keys: "+, −, 0", does: "larger, smaller, whole image", matches: (event) => ["+", "=", "-", "0"].includes(event.key) && isBare(event), run: (event) => (event.key === "0" ? viewer.resetZoom() : viewer.zoom(event.key === "-" ? 0.8 : 1.25)) },
        { keys: "N", does: "next case", matches: plain("n"), run: () => this.guard(() => this.cases.next()) },
        { keys: "Ctrl S", does: "save", matches: control("s"), run: () => session.image && this.guard(() => this.save()) },
        { keys: "Ctrl Enter", does: "save and next case", matches: control("Enter"), run: () => session.image && this.guard(() => this.saveAndNext()) },
        { keys: "?", does: "this help", everywhere: true, matches: (event) => event.key === "?", run: () => $("help").showModal() },
      ],
      () => !$("annotate").hidden && !this.dragged && !this.stroke.size, // keys wait while the pointer draws
    );
  }

  /** @param {number} number of a label, from 1 */
  #activate(number) {
    const label = this.session.labels[number - 1];
    if (label) this.session.activate(label.name);
  }
}

