// The networks, in a worker, so the page responds while they compute. Everything is loaded from this folder.
import * as ort from "./ort/ort.wasm.min.module.js";

const MOST_THREADS = 8;
const here = (name) => new URL(name, import.meta.url).href;
ort.env.wasm.wasmPaths = {
  mjs: here("./ort/ort-wasm-simd-threaded.module.js"),
  wasm: here("./ort/ort-wasm-simd-threaded.wasm"),
};
// Threads need a page isolated from others; two headers of the server turn that on (see the file _headers).
const threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;
ort.env.wasm.numThreads = threads;

const models = new Map(); // name -> bytes, until a session is made from them
const sessions = new Map();

async function digest(bytes) {
  if (!self.crypto?.subtle) return null; // missing on pages from other computers without https
  const found = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...found].map((x) => x.toString(16).padStart(2, "0")).join("");
}

async function fetched({ model, bytes, sha256 }) {
  if (models.has(model) || sessions.has(model)) return {};
  const response = await fetch(here(model));
  if (!response.ok) throw new Error(`${model} is missing (${response.status}): copy the whole folder`);
  const found = new Uint8Array(bytes);
  let length = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (length + value.length <= bytes) found.set(value, length);
    length += value.length;
    postMessage({ progress: length / bytes });
  }
  const is = length === bytes ? await digest(found) : "";
  if (is !== null && is !== sha256) throw new Error(`${model} is not the file of this page: copy the whole folder again`);
  models.set(model, found);
  return {};
}

async function session(model) {
  if (!sessions.has(model)) {
    // Weights of 16 or 8 bits are converted to 32-bit numbers once, here.
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all", extra: { session: { disable_quant_qdq: "1" } } };
    sessions.set(model, await ort.InferenceSession.create(models.get(model), options));
    models.delete(model);
  }
  return sessions.get(model);
}

async function translated({ model, picture: { data, width, height, channels } }) {
  const found = await session(model);
  const started = performance.now();
  const input = new ort.Tensor("float32", data, [1, height, width, channels]);
  const { translated } = await found.run({ images: input });
  const picture = { data: translated.data, width, height, channels: translated.dims[3] };
  return { picture, milliseconds: performance.now() - started };
}

const tasks = { fetch: fetched, prepare: ({ model }) => session(model).then(() => ({})), translate: translated };
let last = Promise.resolve();

onmessage = ({ data: { id, task, ...given } }) => {
  last = last
    .then(() => tasks[task](given))
    .then((found) => postMessage({ id, ...found }, found.picture ? [found.picture.data.buffer] : []))
    .catch((error) => postMessage({ id, error: error?.message ?? String(error) }));
};
postMessage({ threads });
