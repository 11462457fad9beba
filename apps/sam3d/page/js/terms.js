/* Words that explain themselves: by the pointer, by a press of the keyboard, and by touch. */

import { $, make } from "./dom.js";

/** Pixels between a word and its explanation, and between that and the border of the window. */
const GAP = 6;

/**
 * A word with an explanation.
 * @param {string} name
 * @param {string} explanation
 */
export const term = (name, explanation) =>
  make("dfn", {}, make("button", { type: "button", class: "term", title: explanation, "data-term": name }, name));

/** @param {HTMLElement} word */
function explain(word) {
  const shown = $("explanation");
  shown.textContent = word.title;
  const { left, bottom, top } = word.getBoundingClientRect();
  const { width, height } = shown.getBoundingClientRect();
  const isRoomBelow = bottom + GAP + height < innerHeight;
  shown.style.left = `${Math.max(GAP, Math.min(left, innerWidth - width - GAP))}px`;
  shown.style.top = `${isRoomBelow ? bottom + GAP : top - GAP - height}px`;
}

const forget = () => ($("explanation").textContent = "");

/** Show the explanation of a word that is pressed, until something else is. */
export function listenToTerms() {
  document.addEventListener("click", ({ target }) => {
    const word = target instanceof Element ? /** @type {HTMLElement | null} */ (target.closest(".term")) : null;
    if (word && $("explanation").textContent !== word.title) explain(word);
    else forget();
  });
  document.addEventListener("keydown", ({ key }) => key === "Escape" && forget());
  window.addEventListener("hashchange", forget);
  document.addEventListener("scroll", forget, { capture: true, passive: true });
}
