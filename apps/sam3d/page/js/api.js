/* Requests to the server. Every route is documented in docs/how-to/page.md, so that scripts can use it as well. */

import { decodeNifti, gunzip } from "./nifti.js";

/** @typedef {import("./nifti.js").Nifti} Nifti */
/** @typedef {import("./crop.js").Box} Box */
/** @typedef {[number, number, number]} Voxel */
/** @typedef {{value: number, predicted_dice: number, voxels: number}} Candidate */
/**
 * @typedef {object} Answer The JSON part of a mask.
 * @property {Record<string, number>} label_names
 * @property {Box | null} crop_box
 * @property {Record<string, number>} [latencies]
 * @property {string} [model_version]
 * @property {Voxel | null} [next_click]
 * @property {Candidate[]} [candidates]
 * @property {string} [ignored_candidate] why the chosen candidate was not used
 */
/** @typedef {Answer & import("./grid.js").Place} SavedLabel */
/** @typedef {{image: string, title: string | null, labelled: boolean, doubt: number | null}} Case */
/**
 * @typedef {object} View What the server knows of an image.
 * @property {Voxel} shape
 * @property {Voxel} spacing mm
 * @property {number[][]} affine voxel to mm (RAS)
 * @property {[number, number]} window
 * @property {[number, number]} range
 * @property {string | null} modality
 * @property {string | null} modality_from
 * @property {string | null} study StudyInstanceUID, on a DICOM server
 */

/** The server's root: the page is at ROOT/sam3d/, and ROOT may have a path prefix. */
const ROOT = new URL("..", document.baseURI).pathname.replace(/\/$/, "");

/** The name of this browser in the server's records, where nobody is logged in. */
const CLIENT = (() => {
  const known = localStorage.getItem("sam3d-client");
  const name = known ?? `page-${Math.random().toString(36).slice(2, 10)}`;
  localStorage.setItem("sam3d-client", name);
  return name;
})();

export class ApiError extends Error {
  /**
   * @param {number} status 0 when the server does not answer
   * @param {string} message for people
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Whether the page has work that going to the login page would lose. */
export const unsaved = { isThere: () => false };

/** Texts for a status whose reason the server's own sentence does not say to an annotator. @type {Record<number, string>} */
const PLAIN = {
  403: "Not allowed",
  413: "The file is too large for this server",
  429: "You have sent many requests at once; wait for their answers",
  503: "The server is busy; try again in a few seconds",
};

/**
 * Send a request, and return its answer if the status is a success.
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
async function send(path, options = {}) {
  let response;
  try {
    response = await fetch(`${ROOT}${path}`, options);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer. Is it running, and is this machine connected?");
  }
  if (response.status === 401) {
    if (!unsaved.isThere()) location.assign(`login?next=${encodeURIComponent(location.pathname + location.hash)}`);
    throw new ApiError(401, "Your login has ended. Log in again in another tab, then go on here");
  }
  if (response.ok) return response;
  const detail = await response.json().then((body) => body.detail, () => "");
  const reason = typeof detail === "string" && detail ? detail : response.statusText;
  const plain = PLAIN[response.status];
  throw new ApiError(response.status, plain ? `${plain} (${reason})` : reason);
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
const json = async (path, options) => (await send(path, options)).json();

/**
 * @param {unknown} body
 * @param {string} [method]
 * @returns {RequestInit}
 */
const asJson = (body, method = "POST") => ({
  method,
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

/** @param {Record<string, string | number>} values */
const query = (values) => `?${new URLSearchParams(Object.entries(values).map(([key, value]) => [key, String(value)]))}`;

/**
 * Read a form with the JSON part and a cropped .nii.gz.
 * @param {Response} response
 * @returns {Promise<{params: any, file: Nifti}>}
 */
async function cropForm(response) {
  const form = await response.formData();
  const [params, image] = [form.get("params"), form.get("image")];
  const text = params instanceof Blob ? await params.text() : String(params);
  if (!(image instanceof Blob)) throw new ApiError(0, "The server's answer holds no mask");
  return { params: JSON.parse(text), file: decodeNifti(await gunzip(await image.arrayBuffer())) };
}

export const api = {
  /** @returns {Promise<any>} */
  info: () => json("/info/"),
  /** @returns {Promise<any>} */
  state: () => json("/sam3d/state"),
  /** @returns {Promise<Case[]>} */
  cases: () => json("/sam3d/cases"),

  /**
   * @param {string} image
   * @returns {Promise<View>}
   */
  view: (image) => json(`/sam3d/cases/view${query({ image })}`),

  /**
   * @param {string} image
   * @param {(fraction: number | null) => void} progress null while the size is unknown
   * @param {AbortSignal} signal
   * @returns {Promise<ArrayBuffer>} a NIfTI file, decompressed
   */
  async volume(image, progress, signal) {
    const response = await send(`/sam3d/cases/volume${query({ image })}`, { signal });
    const total = Number(response.headers.get("Content-Length"));
    const chunks = [];
    let received = 0;
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      chunks.push(value);
      received += value.length;
      progress(total ? received / total : null);
    }
    return gunzip(await new Blob(/** @type {BlobPart[]} */ (chunks)).arrayBuffer());
  },

  /**
   * Run a model; the file holds only the box of the voxels that are not 0.
   * @param {string} model
   * @param {string} image
   * @param {Record<string, unknown>} params
   * @param {AbortSignal} [signal]
   * @returns {Promise<{params: Answer, file: Nifti}>}
   */
  async infer(model, image, params, signal) {
    const form = new FormData();
    const wanted = { client_id: CLIENT, result_crop: true, result_extension: ".nii.gz", ...params };
    form.append("params", JSON.stringify(wanted));
    return cropForm(await send(`/infer/${model}${query({ image, output: "all" })}`, { method: "POST", body: form, signal }));
  },

  /**
   * @param {string} model
   * @param {string} image
   * @returns {Promise<{running: boolean, done?: number, total?: number}>}
   */
  progress: (model, image) => json(`/sam3d/progress${query({ model, image })}`),

  /**
   * @param {string} image
   * @returns {Promise<{params: SavedLabel, file: Nifti} | null>} the final label; null when there is none
   */
  async savedLabel(image) {
    const response = await send(`/datastore/segmentation${query({ image, result_crop: "true" })}`);
    return response.status === 204 ? null : cropForm(response);
  },

  /**
   * @param {string} image
   * @returns {Promise<any>} the record of the final label
   */
  labelRecord: (image) => json(`/datastore/label/info${query({ label: image, tag: "final" })}`),

  /**
   * @param {string} image
   * @param {Blob} file .nii.gz
   * @param {Record<string, unknown>} record
   */
  async save(image, file, record) {
    const form = new FormData();
    form.append("params", JSON.stringify({ client_id: CLIENT, ...record }));
    form.append("label", file, "label.nii.gz");
    return json(`/datastore/label${query({ image, tag: "final" })}`, { method: "PUT", body: form });
  },

  /**
   * @param {string} strategy
   * @returns {Promise<{id?: string, why?: string}>}
   */
  next: (strategy) => json(`/activelearning/${strategy}`, asJson({ client_id: CLIENT })),

  /** @param {number | null} epochs */
  train: (epochs) => json("/train/sam3d", asJson(epochs ? { max_epochs: epochs } : {})),
  stopTraining: () => json("/train/", { method: "DELETE" }),
  /** @param {string | null} version */
  activate: (version) => json("/sam3d/rollback", asJson({ version })),
};
