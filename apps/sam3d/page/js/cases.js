/* The list of cases, and the choice of the next one. */

import { api } from "./api.js";
import { $, make, refill } from "./dom.js";

/** @typedef {import("./api.js").Case} Case */

/** Rows that are shown; a search finds the others. */
const MOST_ROWS = 300;

/** @type {Record<string, string>} */
const STRATEGIES = {
  random: "Random", first: "First unlabelled", uncertainty: "Highest uncertainty", diverse: "Most different",
};

export class Cases {
  /** @param {(image: string, why: string) => void} open */
  constructor(open) {
    this.open = open;
    /** @type {Case[]} */
    this.cases = [];
    this.current = "";
    this.readAt = Date.now();
    $("case-filter").addEventListener("input", () => this.#show());
    $("case-list").addEventListener("click", (/** @type {MouseEvent} */ event) => {
      const button = /** @type {HTMLElement} */ (event.target).closest("button");
      if (button?.dataset.image) this.open(button.dataset.image, "");
    });
    $("strategy").addEventListener("change", () => localStorage.setItem("sam3d-strategy", $("strategy").value));
    $("cases-toggle").addEventListener("click", () => this.expand($("cases-body").hidden));
  }

  /** Show or hide the list, on narrow screens. @param {boolean} isOpen */
  expand(isOpen) {
    $("cases-body").hidden = !isOpen;
    $("cases-toggle").setAttribute("aria-expanded", String(isOpen));
  }

  /** @param {Record<string, string | {description?: string}>} strategies of `/info/` */
  setStrategies(strategies) {
    const options = Object.keys(strategies).map((name) => make("option", { value: name }, STRATEGIES[name] ?? name));
    $("strategy").replaceChildren(...options);
    const wanted = localStorage.getItem("sam3d-strategy") ?? "random";
    if (wanted in strategies) $("strategy").value = wanted;
  }

  async reload() {
    this.readAt = Date.now();
    this.cases = await api.cases();
    this.#show();
  }

  /** The name of an image for people. @param {string} image */
  nameOf(image) {
    return this.cases.find((each) => each.image === image)?.title ?? image;
  }

  /** @param {string} image */
  setCurrent(image) {
    this.current = image;
    this.#show();
    $("case-list").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  /** Open the case that the strategy chooses. */
  async next() {
    const { id, why } = await api.next($("strategy").value);
    if (!id) {
      $("why").textContent = this.cases.length ? "All cases are labelled." : "There are no images in the studies.";
      return;
    }
    const chosen = STRATEGIES[$("strategy").value] ?? $("strategy").value;
    this.open(id, why ?? `chosen by: ${chosen.toLowerCase()}`);
  }

  #show() {
    const wanted = $("case-filter").value.trim().toLowerCase();
    const found = this.cases.filter(({ image, title }) => `${image} ${title ?? ""}`.toLowerCase().includes(wanted));
    const labelled = this.cases.filter((each) => each.labelled).length;
    $("case-count").textContent = this.cases.length ? `${labelled} of ${this.cases.length} labelled` : "";
    const rows = found.slice(0, MOST_ROWS).map((each) => this.#row(each));
    if (found.length > MOST_ROWS) rows.push(make("li", { class: "more" }, `${found.length - MOST_ROWS} more: search for them`));
    if (!found.length) rows.push(make("li", { class: "more" }, this.cases.length ? "No image has this name." : "No images yet: put them into the studies folder."));
    refill($("case-list"), ...rows);
  }

  /** @param {Case} entry */
  #row({ image, title, labelled, doubt }) {
    const name = title ?? image;
    const state = labelled ? "labelled" : doubt === null ? "not labelled" : `not labelled, uncertainty ${doubt.toFixed(2)}`;
    const attributes = { type: "button", "data-image": image, title: `${name}: ${state}${title ? `\n${image}` : ""}`, "aria-label": `${name}, ${state}` };
    const button = make(
      "button",
      image === this.current ? { ...attributes, "aria-current": "true" } : attributes,
      make("span", { class: "mark", "aria-hidden": "true" }, labelled ? "✓" : "○"),
      make("span", { class: "name" }, name),
      make("span", { class: "doubt", "aria-hidden": "true" }, doubt === null || labelled ? "" : doubt.toFixed(2)),
    );
    return make("li", {}, button);
  }
}
