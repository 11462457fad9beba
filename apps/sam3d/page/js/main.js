/* Start of the page: its two parts, the errors, and who is logged in. */

import { isLearning } from "./address.js";
import { Annotator } from "./annotate.js";
import { api, unsaved } from "./api.js";
import { $ } from "./dom.js";
import { startLearning } from "./learn.js";
import { listenToTerms } from "./terms.js";

/** Problems by the part of the page that has them: one of them may end while another stays. @type {Map<string, string>} */
const problems = new Map(["start", "annotate", "mask"].map((part) => [part, ""])); // the first one is shown

/** @param {string} part @returns {(message: string) => void} */
const complainAs = (part) => (message) => {
  problems.set(part, message);
  const shown = [...problems.values()].find(Boolean) ?? "";
  $("problem-text").textContent = shown;
  $("problem").hidden = !shown;
};

/** Show the part that the address names. */
function showPart() {
  const part = isLearning() ? "learn" : "annotate";
  for (const name of ["annotate", "learn"]) {
    $(name).hidden = name !== part;
    if (name === part) $(`to-${name}`).setAttribute("aria-current", "page");
    else $(`to-${name}`).removeAttribute("aria-current");
  }
  window.dispatchEvent(new Event("resize"));
}

/** @param {any} state */
function showUser({ user }) {
  $("user").hidden = !user;
  $("user").textContent = user ?? "";
  $("user").title = "Who is logged in; log out";
}

async function start() {
  $("problem-close").addEventListener("click", () => {
    for (const part of problems.keys()) complainAs(part)("");
  });
  $("help-button").addEventListener("click", () => $("help").showModal());
  listenToTerms();
  window.addEventListener("hashchange", showPart);
  showPart();
  const annotator = new Annotator(complainAs("annotate"), complainAs("mask"));
  unsaved.isThere = () => annotator.session.isDirty;
  /** For scripts and tests: the open case and its viewer. */
  Object.assign(window, { sam3d: { annotator, session: annotator.session, viewer: annotator.viewer } });
  const learning = startLearning({ reading: complainAs("state"), doing: complainAs("learn") }, (state) => {
    showUser(state);
    annotator.setState(state);
  });
  try {
    await annotator.start(await api.info());
    await annotator.follow();
    window.addEventListener("hashchange", () => isLearning() || annotator.follow());
  } catch (error) {
    complainAs("start")(`The viewer cannot start: ${error instanceof Error ? error.message : error}. It needs a browser with WebGL 2.`);
  }
  await learning;
}

start();
