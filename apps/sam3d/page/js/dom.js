/* Elements of the page. They are made from text, never from HTML, because the names of images are untrusted. */

/**
 * Return the element with an id.
 * @param {string} id
 * @returns {any}
 */
export const $ = (id) => {
  const element = document.getElementById(id);
  if (!element) throw new Error(`The page has no element ${id}`);
  return element;
};

/**
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(string | Node)} children
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * Make an element of an SVG picture.
 * @param {string} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {...(string | Node)} children
 */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * Replace the content of an element; the focus stays on the button of the same data.
 * @param {HTMLElement} parent
 * @param {...Node} children
 */
export function refill(parent, ...children) {
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  const [name, value] = (focused && parent.contains(focused) && Object.entries(focused.dataset)[0]) || [];
  parent.replaceChildren(...children);
  if (name) [...parent.querySelectorAll("button")].find((each) => each.dataset[name] === value)?.focus();
}

/**
 * A number for people; a dash where there is none.
 * @param {unknown} value
 * @param {number} [digits]
 */
export const number = (value, digits = 3) =>
  value === undefined || value === null || value === "" ? "–" : Number(value).toFixed(digits);

/** @param {string | null | undefined} text ISO 8601 */
export const when = (text) =>
  text ? new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "–";

/**
 * A number with its noun, such as "1 label" and "2 labels".
 * @param {number} amount
 * @param {string} noun
 */
export const count = (amount, noun) => `${amount} ${noun}${amount === 1 ? "" : "s"}`;

/**
 * A time for people, such as "40 s" or "3 min".
 * @param {number} seconds
 */
export const duration = (seconds) =>
  seconds < 90 ? `${Math.max(1, Math.round(seconds))} s`
  : seconds < 5400 ? `${Math.round(seconds / 60)} min`
  : `${(seconds / 3600).toFixed(1)} h`;

/**
 * An action that is not repeated while it runs, however often its button is pressed.
 * @template T
 * @param {() => Promise<T>} action
 * @returns {() => Promise<T>}
 */
export function once(action) {
  /** @type {Promise<T> | null} */
  let running = null;
  return () => (running ??= action().finally(() => (running = null)));
}

/**
 * Ask for confirmation in the page's dialog.
 * @param {string} question
 * @param {string} yes text of the button
 * @param {string[]} [warnings]
 * @returns {Promise<boolean>}
 */
export async function confirmed(question, yes, warnings = []) {
  $("question").textContent = question;
  $("warnings").replaceChildren(...warnings.map((text) => make("li", {}, text)));
  $("confirmed").textContent = yes;
  const dialog = $("confirm");
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return dialog.returnValue === "yes";
}
