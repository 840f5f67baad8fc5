// The page: an image or a drawing on the left, the network's translation on the right.
import { Drawing } from "./drawing.js";
import { cut, decode, encode, fromImageData, isLabels, pad, paddedSize, prepared, resize, toImageData } from "./pictures.js";

const get = (id) => document.getElementById(id);
const PAINTS = ["#ffffff", "#000000", "#808080", "#c0392b", "#e67e22", "#f1c40f", "#27ae60", "#16a0a0", "#2d6fd0", "#7d3cb5", "#8b5a2b", "#f5c6a5"];

get("needs-server").remove();
document.querySelector("main").hidden = false;

function tell(text, isError = false) {
  get("status").textContent = text;
  get("status").classList.toggle("error", isError);
}

// --- the worker that computes ----------------------------------------------------------------------------------------

const worker = new Worker("translate.js", { type: "module" });
const waiting = new Map();
let jobs = 0;

worker.onmessage = ({ data }) => {
  if (data.threads !== undefined) {
    get("threads").textContent = data.threads;
    return;
  }
  if (data.progress !== undefined) {
    if (loading) tell(`Loading the network: ${Math.round(data.progress * 100)} %`);
    return;
  }
  const job = waiting.get(data.id);
  waiting.delete(data.id);
  if (data.error !== undefined) job?.reject(new Error(data.error));
  else job?.resolve(data);
};
worker.onerror = (event) => {
  event.preventDefault();
  tell("This browser cannot run the network: it needs a browser from 2023 or later.", true);
};

function ask(task, given, transfer = []) {
  return new Promise((resolve, reject) => {
    waiting.set(++jobs, { resolve, reject });
    worker.postMessage({ id: jobs, task, ...given }, transfer);
  });
}

// --- the page's own state --------------------------------------------------------------------------------------------

const drawing = new Drawing(get("drawing"));
let manifest, way; // what export wrote, and the direction in use
let loading = true;
let [busy, again] = [false, false]; // a translation is running, and another one is wanted
let [opening, soon] = [0, 0]; // images being read, and the timer until a change is translated
let source = null; // {name, picture}: the chosen image, in RGB

function limits() {
  const [height, width] = manifest.size;
  if (way.fixed) return [height, width];
  const longest = get("size").value === "own" ? Infinity : Number(get("size").value);
  return [longest, longest];
}

// Show an image, reduced if it is too large; colours of labels are not mixed.
function show({ picture }) {
  const found = prepared(picture, way.input);
  const [height, width] = limits();
  const factor = Math.min(1, height / found.height, width / found.width);
  const side = (length) => Math.max(Math.round(length * factor), 1);
  const sized = factor < 1 ? resize(found, side(found.width), side(found.height), isLabels(way.input)) : found;
  drawing.forget();
  drawing.load(toImageData(sized));
  drawing.forget();
  update();
}

function blank() {
  source = null;
  const [height, width] = manifest.size;
  const canvas = get("drawing");
  drawing.forget();
  [canvas.width, canvas.height] = [width, height];
  drawing.clear(way.draw.paper);
  drawing.forget();
  update();
}

// Mark the shown translation as out of date, or as current.
function tellBusy() {
  if (busy || again || opening || soon) get("output").setAttribute("aria-busy", "true");
  else get("output").removeAttribute("aria-busy");
}

async function open(file, name) {
  opening++;
  tellBusy();
  try {
    await read(file, name);
    show(source);
  } catch {
    tell(`${name ?? "The pasted content"} is not an image that this browser can read.`, true);
  }
  opening--;
  tellBusy();
}

async function read(file, name) {
  const bitmap = await createImageBitmap(file, { premultiplyAlpha: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.fillStyle = manifest.background; // transparent pixels show it
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  source = { name: name ?? "image", picture: fromImageData(context.getImageData(0, 0, canvas.width, canvas.height)) };
  bitmap.close();
}

// --- translation -----------------------------------------------------------------------------------------------------

async function translate() {
  if (busy || loading) {
    again = true;
    return;
  }
  [busy, again] = [true, false];
  tellBusy();
  const [used, given] = [way, fromImageData(drawing.picture)];
  try {
    const { height, width } = given;
    const picture = pad(encode(given, used.input), ...paddedSize(height, width, used));
    const found = await ask("translate", { model: used.model, picture }, [picture.data.buffer]);
    given.isLab = used.input.kind.startsWith("lab_");
    finish(given, decode(cut(found.picture, height, width), used.output, given), found.milliseconds, used);
  } catch (error) {
    tell(/memory|allocate|alloc|grow/i.test(error.message)
      ? "This image needs more memory than the browser has: choose a smaller longest side."
      : `The image could not be translated: ${error.message}`, true);
  }
  busy = false;
  if (again) translate();
  else tellBusy();
}

function finish(given, translated, milliseconds, used) {
  for (const [id, picture] of [["before", prepared(given, used.input)], ["after", translated]]) {
    const canvas = get(id);
    [canvas.width, canvas.height] = [picture.width, picture.height];
    canvas.classList.toggle("large", Math.max(picture.width, picture.height) > 400);
    canvas.getContext("2d", { willReadFrequently: true }).putImageData(toImageData(picture), 0, 0);
  }
  get("time").textContent = `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms for ${given.width} × ${given.height}`;
  get("time").dataset.direction = used.name;
  get("save").disabled = false;
}

function update() {
  if (!loading) tell("");
  const { width, height } = get("drawing");
  get("drawing").classList.toggle("large", Math.max(width, height) > 400);
  get("drawing").setAttribute("aria-label", `Input, ${width} by ${height} pixels, to draw on`);
  get("undo").disabled = !drawing.canUndo;
  get("place").hidden = true;
  clearTimeout(soon);
  soon = setTimeout(() => {
    soon = 0;
    translate();
  }, 60);
  tellBusy();
}

// --- tools -----------------------------------------------------------------------------------------------------------

function swatch(color) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("aria-hidden", "true");
  const square = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [key, value] of Object.entries({ width: 1, height: 1, fill: color })) square.setAttribute(key, value);
  svg.append(square);
  return svg;
}

function fillColors() {
  const { kind, colors } = way.draw;
  const named = kind === "colors" ? PAINTS.map((color) => [color, color]) : colors;
  const labels = named.map(([name, color]) => {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "color", value: color });
    radio.setAttribute("aria-label", name);
    radio.addEventListener("change", () => (drawing.color = color));
    label.append(radio, swatch(color));
    if (kind === "colors") label.title = name;
    else label.append(name);
    return label;
  });
  if (kind === "colors") {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "color", value: "own" });
    const own = Object.assign(document.createElement("input"), { type: "color", value: "#2d5b80" });
    radio.setAttribute("aria-label", "own colour");
    own.setAttribute("aria-label", "own colour: choose");
    radio.addEventListener("change", () => (drawing.color = own.value));
    own.addEventListener("input", () => ((radio.checked = true), (drawing.color = own.value)));
    label.append(radio, own, "own");
    labels.push(label);
  }
  get("colors").replaceChildren(get("colors").querySelector("legend"), ...labels);
  const first = named.findIndex(([, color]) => color !== way.draw.paper);
  labels[Math.max(first, 0)].querySelector("input").click();
}

function setWidth() {
  drawing.width = Number(get("width").value);
  get("width-told").textContent = `${drawing.width} px`;
}

function setDivide(percent) {
  get("divide").value = percent;
  get("stage").style.setProperty("--at", `${get("divide").value}%`);
}

drawing.changed = update;
drawing.moved = () => {
  const [mark, [x, y]] = [get("place"), drawing.place];
  const { width, height } = get("drawing");
  mark.hidden = false;
  mark.style.left = `${(100 * x) / width}%`;
  mark.style.top = `${(100 * y) / height}%`;
};
get("drawing").addEventListener("blur", () => (get("place").hidden = true));
get("drawing").addEventListener("pointerdown", () => (get("place").hidden = true));
get("tool").addEventListener("change", () => (drawing.tool = get("tool").value));
get("width").addEventListener("input", setWidth);
get("undo").addEventListener("click", () => drawing.undo());
get("clear").addEventListener("click", () => drawing.clear(way.draw.paper));
get("new").addEventListener("click", blank);
get("open").addEventListener("click", () => get("file").click());
get("file").addEventListener("change", () => {
  const [file] = get("file").files;
  if (file) open(file, file.name);
  get("file").value = "";
});
get("size").addEventListener("change", () => source && show(source));
get("direction").addEventListener("change", () => choose(manifest.directions[get("direction").selectedIndex]));
get("divide").addEventListener("input", () => setDivide(get("divide").value));
for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "z") drawing.undo();
});

get("stage").addEventListener("pointerdown", (event) => {
  get("stage").setPointerCapture(event.pointerId);
  slide(event);
});
get("stage").addEventListener("pointermove", (event) => event.buttons && slide(event));
function slide(event) {
  const box = get("stage").getBoundingClientRect();
  setDivide((100 * (event.clientX - box.left)) / box.width);
}

// An image may be dropped anywhere: otherwise the browser would leave the page to show it.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  get("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => event.relatedTarget || get("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  get("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) open(file, file.name);
  else tell("The dropped content is not a file: save the image first, or copy and paste it.", true);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) open(file, file.name);
});

get("save").addEventListener("click", () => {
  get("after").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    const name = (source?.name ?? "drawing").replace(/\.[^.]*$/, "");
    link.download = `${name}_${way.name}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
});

// --- start -----------------------------------------------------------------------------------------------------------

async function choose(direction) {
  const before = way;
  way = direction;
  get("size-choice").hidden = way.fixed;
  fillColors();
  const kind = ({ input, fixed }) => [isLabels(input), input.channels === 1, fixed].join();
  if (before && kind(before) === kind(way) && before.draw.paper === way.draw.paper) update(); // the drawing stays
  else if (source) show(source);
  else blank();
}

function fillChoices() {
  for (const { name, label } of manifest.directions) get("direction").add(new Option(label, name));
  get("direction-choice").hidden = manifest.directions.length < 2;
  const least = Math.max(...manifest.size);
  for (const factor of [1, 2, 4]) get("size").add(new Option(`${least * factor} px`, least * factor));
  get("size").add(new Option("as it is", "own"));
  get("width").value = Math.max(Math.round(least * 0.03), 1);
  get("width").max = Math.max(Math.round(least * 0.16), 8);
  setWidth();
  const runtime = `ONNX Runtime Web ${manifest.runtime.version} (MIT licence, Microsoft; see ort/LICENSE)`;
  const facts = [...manifest.facts, ["Computes with", runtime]].flatMap(([name, value]) => {
    const [term, told] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, told.textContent] = [name, value];
    return [term, told];
  });
  get("facts").prepend(...facts);
}

async function start() {
  try {
    const response = await fetch("manifest.json");
    if (!response.ok) throw new Error(`manifest.json is missing (${response.status}): copy the whole folder`);
    manifest = await response.json();
    fillChoices();
    await choose(manifest.directions[0]);
    const [first, ...others] = manifest.directions;
    await ask("fetch", first);
    tell("Preparing the network ...");
    await ask("prepare", first);
    loading = false;
    tell("");
    translate();
    for (const other of others) await ask("fetch", other); // from now on the page needs no server
    document.body.dataset.state = "ready";
  } catch (error) {
    tell(`The page cannot start: ${error.message}`, true);
    document.body.dataset.state = "failed";
  }
}

start();
