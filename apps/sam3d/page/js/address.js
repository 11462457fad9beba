/* The part of the address after #: #/annotate, #/annotate/IMAGE or #/learn. */

/** The image in the address; empty when there is none. */
export function wantedImage() {
  const part = location.hash.match(/^#\/annotate\/(.+)$/)?.[1] ?? "";
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a % that escapes nothing
  }
}

/** Whether the part of the page that learns is wanted. */
export const isLearning = () => location.hash.startsWith("#/learn");

/**
 * Have the address name the open image. Another image in it stays behind, for the browser's Back.
 * @param {string} image
 */
export function keepAndShow(image) {
  if (wantedImage() && wantedImage() !== image) history.pushState(null, "", addressOf(image));
  else show(image);
}

/** Have the address name the open image instead of what it names. @param {string} image */
export const show = (image) => history.replaceState(null, "", addressOf(image));

/** @param {string} image */
const addressOf = (image) => `#/annotate/${encodeURIComponent(image)}`;
