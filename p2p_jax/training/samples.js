"use strict";

const LOOK_EVERY = 5000; // milliseconds
const step = document.getElementById("step");
const column = document.getElementById("column");
const size = document.getElementById("size");
const table = document.querySelector("#steps table");
let grids = [];

/* Called by steps.js, which holds all grids so far. */
function show(found) {
  if (JSON.stringify(found) === JSON.stringify(grids)) return;
  const atEnd = +step.value === grids.length - 1 || !grids.length;
  grids = found;
  document.getElementById("waiting").hidden = grids.length > 0;
  for (const id of ["time", "steps"]) document.getElementById(id).hidden = !grids.length;
  if (!grids.length) return;
  step.max = grids.length - 1;
  if (atEnd) step.value = step.max;
  offerColumns();
  showStep();
  showSteps();
}

function showStep() {
  const grid = grids[step.value];
  const image = document.getElementById("grid");
  image.src = grid.file;
  image.alt = `${grid.columns.join(", ")} at step ${grid.step}`;
  document.getElementById("caption").textContent = grid.caption;
}

function isInput(name) {
  return ["input", "target"].includes(name) || name.startsWith("real ");
}

function offerColumns() {
  document.getElementById("legend").hidden = !grids.at(-1).columns.some((name) => name.startsWith("real "));
  const names = grids.at(-1).columns.filter((name) => !isInput(name));
  const before = column.value;
  column.replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(before)) column.value = before;
}

/* One image of a grid: the file, moved behind a window of the image's size. */
function cell(grid, name, row) {
  const scale = size.value / grid.width;
  const index = grid.columns.indexOf(name);
  const shown = document.createElement("div");
  shown.className = "cell";
  shown.style.height = `${grid.height * scale}px`;
  if (index < 0 || row >= grid.rows) return shown;
  const image = document.createElement("img");
  image.loading = "lazy";
  image.alt = `${name}, image ${row + 1}, step ${grid.step}`;
  image.style.width = `${(grid.columns.length * (grid.width + grid.gap) - grid.gap) * scale}px`;
  image.style.left = `${-index * (grid.width + grid.gap) * scale}px`;
  image.style.top = `${-(grid.top + row * (grid.height + grid.gap)) * scale}px`;
  image.src = grid.file;
  shown.append(image);
  return shown;
}

function showSteps() {
  const last = grids.at(-1);
  const stays = last.columns.filter(isInput);
  const shown = [
    ...stays.map((name) => ({ grid: last, name, title: name, stays: true })),
    ...grids.map((grid) => ({ grid, name: column.value, title: grid.step.toLocaleString("en") })),
  ];
  table.style.setProperty("--side", `${size.value}px`);
  const head = document.createElement("tr");
  for (const each of shown) {
    const th = document.createElement("th");
    th.scope = "col";
    th.textContent = each.title;
    if (each.stays) th.className = "stays";
    head.append(th);
  }
  const rows = Array.from({ length: last.rows }, (_, row) => {
    const tr = document.createElement("tr");
    for (const each of shown) {
      const td = document.createElement("td");
      if (each.stays) td.className = "stays";
      td.append(cell(each.grid, each.name, row));
      tr.append(td);
    }
    return tr;
  });
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...rows);
  if (+step.value === grids.length - 1) table.parentElement.scrollLeft = table.parentElement.scrollWidth;
}

/* A page from disk may not fetch a file, but may run it. */
function look() {
  const script = document.createElement("script");
  script.src = `steps.js?${Date.now()}`;
  script.onload = script.onerror = () => script.remove();
  document.head.append(script);
}

for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
step.addEventListener("input", showStep);
column.addEventListener("change", showSteps);
size.addEventListener("input", showSteps);
look();
setInterval(look, LOOK_EVERY);
