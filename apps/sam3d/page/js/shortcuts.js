/* Keys, and the overlay that lists them. */

import { $, make } from "./dom.js";

/**
 * @typedef {object} Shortcut
 * @property {string} keys for people
 * @property {string} does
 * @property {(event: KeyboardEvent) => boolean} matches
 * @property {(event: KeyboardEvent) => void} run
 * @property {boolean} [everywhere] also on other parts of the page than the viewer
 */

/** @param {string} key @param {boolean} [shift] @returns {(event: KeyboardEvent) => boolean} */
export const plain = (key, shift) => (event) =>
  event.key.toLowerCase() === key.toLowerCase() && isBare(event) && (shift === undefined || event.shiftKey === shift);

/** @param {string} key @param {boolean} [shift] @returns {(event: KeyboardEvent) => boolean} */
export const control = (key, shift) => (event) =>
  event.key.toLowerCase() === key.toLowerCase() && isControl(event) && (shift === undefined || event.shiftKey === shift);

/** Whether a key goes with none but Shift: the browser has its own use of the others. @param {KeyboardEvent} event */
export const isBare = (event) => !isControl(event) && !event.altKey;

/** @param {KeyboardEvent} event */
const isControl = (event) => event.ctrlKey || event.metaKey;

/** What the mouse does, for the overlay. */
const MOUSE = [
  ["Click", "inside the target"],
  ["Right click, Ctrl click", "outside the target"],
  ["Drag", "move the crosshair"],
  ["Right drag", "window: contrast and brightness"],
  ["Wheel", "slices"],
  ["Ctrl wheel, two fingers", "enlarge"],
  ["Shift drag, middle drag", "move the image"],
  ["Drag in 3D", "turn"],
];

/**
 * Listen to keys.
 * @param {Shortcut[]} shortcuts
 * @param {() => boolean} isOpen whether the viewer is on the screen
 */
export function listenToKeys(shortcuts, isOpen) {
  const rows = [...MOUSE, ...shortcuts.map(({ keys, does }) => [keys, does])];
  $("shortcuts").replaceChildren(...rows.map(([keys, does]) => make("p", {}, make("span", {}, does), make("kbd", {}, keys))));
  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    const isTyping = target.matches("input:not([type=range]):not([type=checkbox]), textarea, select");
    if (document.querySelector("dialog[open]") || isTyping) return;
    const presses = target.matches("button, a, summary") && (event.key === "Enter" || event.key === " ");
    const slides = target.matches("input[type=range]") && /^(Arrow|Page|Home|End)/.test(event.key);
    if ((presses || slides) && !isControl(event)) return;
    const found = shortcuts.find((each) => (each.everywhere || isOpen()) && each.matches(event));
    if (!found) return;
    event.preventDefault();
    found.run(event);
  });
}
