const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.results.images;
const metrics = Object.keys(data.better);
const find = (id) => document.getElementById(id);

// Small tools

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function draw(tag, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

function format(value) {
  if (value === null || value === undefined) return "n/a";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size >= 1e4 && size < 1e9) return Math.round(value).toLocaleString("en");
  return value === 0 || (size >= 1e-4 && size < 1e4) ? value.toPrecision(4) : value.toExponential(3);
}

function fill(select, names, chosen) {
  for (const name of names) {
    const [value, text] = Array.isArray(name) ? name : [name, name];
    select.append(new Option(text, value, value === chosen, value === chosen));
  }
}

// Pictures: decoded when they are near the window, and released when they are far from it

const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) target.src = data.pictures[target.dataset.picture].uri;
      else target.removeAttribute("src");
    }
  },
  { rootMargin: "900px 0px" },
);

function picture(index, alt) {
  const { width, height } = data.pictures[index];
  const img = make("img", { alt, width, height, decoding: "async", draggable: false });
  img.dataset.picture = index;
  near.observe(img);
  return img;
}

function replacePictures(parent, ...children) {
  for (const img of parent.querySelectorAll("img")) near.unobserve(img);
  parent.replaceChildren(...children);
}

function values(row, emphasised) {
  return metrics.map((name) => {
    const pair = make("div", {}, make("dt", {}, name), make("dd", {}, format(row[name])));
    pair.classList.toggle("sorted", name === emphasised);
    return pair;
  });
}

// The viewer: all columns of an image side by side

const viewer = { list: [], at: 0 };

function enlarge(list, at) {
  viewer.list = list;
  viewer.at = (at + list.length) % list.length;
  const { row, cells } = list[viewer.at];
  const figures = Object.entries(cells).map(([column, index]) => {
    const { width, height } = data.pictures[index];
    const caption = make("figcaption", {}, `${column}, ${width} \u00d7 ${height}`);
    return make("figure", {}, picture(index, `${column} of ${rows[row].name}`), caption);
  });
  find("viewer-name").textContent = rows[row].name;
  find("viewer-place").textContent = `${viewer.at + 1} of ${list.length}`;
  replacePictures(find("viewer-columns"), ...figures);
  const columns = figures.length > 4 ? 3 : figures.length;
  find("viewer-columns").style.setProperty("--columns", columns);
  find("viewer-columns").style.setProperty("--rows", Math.ceil(figures.length / columns));
  find("viewer-values").replaceChildren(...values(rows[row]));
  if (!find("viewer").open) find("viewer").showModal();
}

function startViewer() {
  const dialog = find("viewer");
  const step = (by) => enlarge(viewer.list, viewer.at + by);
  find("previous").addEventListener("click", () => step(-1));
  find("next").addEventListener("click", () => step(1));
  find("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => replacePictures(find("viewer-columns")));
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
}

// Best and worst cases

function byValue(metric, sign) {
  const value = (shown) => rows[shown.row][metric] ?? null;
  return (a, b) => {
    if (value(a) === null || value(b) === null) return (value(a) === null) - (value(b) === null) || a.row - b.row;
    return sign * (value(a) - value(b)) || a.row - b.row;
  };
}

function showCases() {
  const metric = find("case-metric").value;
  const better = data.better[metric];
  const valid = data.shown.filter(({ row }) => typeof rows[row][metric] === "number");
  const count = Math.min(data.num_cases, Math.max(1, Math.floor(valid.length / 2)));
  const kinds = better === "higher" ? [["Best", "highest", -1], ["Worst", "lowest", 1]]
    : better === "lower" ? [["Best", "lowest", 1], ["Worst", "highest", -1]]
    : [["Lowest", "", 1], ["Highest", "", -1]];
  const groups = kinds.map(([title, which, sign]) => {
    const list = [...valid].sort(byValue(metric, sign)).slice(0, count);
    const heading = make("h3", {}, `${title} `, make("small", {}, `${which} ${metric}`.trim()));
    const labels = make("div", { className: "rows" }, ...data.strip.map((column) => make("span", {}, column)));
    const group = make("div", { className: "cases" }, heading, labels);
    list.forEach((shown, i) => {
      const row = rows[shown.row];
      const caption = make("span", { className: "caption" },
        make("span", { className: "name" }, row.name), make("span", {}, format(row[metric])));
      const images = data.strip.filter((column) => column in shown.cells)
        .map((column) => picture(shown.cells[column], `${column} of ${row.name}`));
      const button = make("button", { type: "button", className: "case" }, ...images, caption);
      button.addEventListener("click", () => enlarge(list, i));
      group.append(button);
    });
    return group;
  });
  replacePictures(find("case-groups"), ...groups);
}

// The gallery

const cards = new Map();
let visible = [];

function makeCard(shown) {
  const stage = make("div", { className: "stage" });
  const name = make("button", { type: "button", className: "name", title: "Enlarge" }, rows[shown.row].name);
  const card = make("article", { className: "card" }, stage, name, make("dl", { className: "values" }));
  const open = () => enlarge(visible, visible.indexOf(shown));
  name.addEventListener("click", open);
  makeSlidable(stage, open);
  return card;
}

function makeSlidable(stage, open) {
  let start = null;
  let dragged = false;
  const end = () => { start = null; };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    start = event.clientX;
    dragged = false;
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (start === null) return;
    dragged ||= Math.abs(event.clientX - start) > 3;
    const box = stage.getBoundingClientRect();
    if (dragged) slide(stage, (100 * (event.clientX - box.left)) / box.width);
  });
  stage.addEventListener("pointerup", end);
  stage.addEventListener("pointercancel", end);
  stage.addEventListener("click", () => dragged || open());
  stage.addEventListener("input", (event) => slide(stage, event.target.value));
}

function slide(stage, at) {
  const slider = stage.querySelector("input");
  slider.value = at;
  stage.style.setProperty("--at", `${slider.value}%`);
}

function setStages() {
  const [left, right] = [find("left").value, find("right").value];
  for (const [shown, card] of cards) {
    const { name } = rows[shown.row];
    const stage = card.querySelector(".stage");
    const label = `${name}: divide between ${left} on the left and ${right} on the right, in percent`;
    const parts = [make("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": label })];
    for (const [i, column] of [left, right].entries()) {
      if (!(column in shown.cells)) continue;
      const img = picture(shown.cells[column], `${column} of ${name}`);
      img.classList.toggle("over", i === 1);
      parts.push(img);
    }
    parts.push(make("span", { className: "divide" }));
    parts.push(make("span", { className: "side" }, left), make("span", { className: "side" }, right));
    stage.style.removeProperty("--at");
    replacePictures(stage, ...parts);
  }
}

function sortCards() {
  const by = find("sort").value;
  const sign = find("order").dataset.sign === "-1" ? -1 : 1;
  const wanted = find("search").value.trim().toLowerCase();
  const nameOf = (shown) => rows[shown.row].name;
  const orders = {
    order: (a, b) => sign * (a.row - b.row),
    name: (a, b) => sign * nameOf(a).localeCompare(nameOf(b), "en", { numeric: true }) || a.row - b.row,
  };
  const metric = by.startsWith("metric:") ? by.slice(7) : null;
  const sorted = [...data.shown].sort(metric === null ? orders[by] : byValue(metric, sign));
  visible = sorted.filter((shown) => nameOf(shown).toLowerCase().includes(wanted));
  for (const shown of visible) cards.get(shown).querySelector("dl").replaceChildren(...values(rows[shown.row], metric));
  find("cards").replaceChildren(...visible.map((shown) => cards.get(shown)));
  find("found").textContent = `${visible.length} of ${data.shown.length} images`;
}

function startGallery() {
  for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (e) => e.preventDefault());
  for (const shown of data.shown) cards.set(shown, makeCard(shown));
  fill(find("sort"), [["order", "order of the data"], ["name", "name"], ...metrics.map((m) => [`metric:${m}`, m])]);
  fill(find("left"), data.columns, data.compare[0]);
  fill(find("right"), data.columns, data.compare[1]);
  find("left").addEventListener("change", setStages);
  find("right").addEventListener("change", setStages);
  find("sort").addEventListener("change", sortCards);
  find("search").addEventListener("input", sortCards);
  find("order").addEventListener("click", ({ currentTarget: button }) => {
    const descending = button.dataset.sign !== "-1";
    button.dataset.sign = descending ? "-1" : "1";
    button.textContent = descending ? "Descending" : "Ascending";
    button.setAttribute("aria-label", `Order: ${button.textContent.toLowerCase()}`);
    sortCards();
  });
  setStages();
  sortCards();
  find("gallery").hidden = false;
}

// The rest

function startCopying() {
  find("copy").addEventListener("click", async () => {
    const text = find("config");
    getSelection().selectAllChildren(text);
    try {
      await navigator.clipboard.writeText(text.textContent);
      find("copy").textContent = "Copied";
    } catch {
      find("copy").textContent = "Selected: press Ctrl+C";
    }
  });
}

function startPrinting() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
    for (const img of document.querySelectorAll("img")) img.src = data.pictures[img.dataset.picture].uri;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
}

if (data.panels.length) {
  document.querySelector(".panels").append(...data.panels.map(makePanel));
  find("curves").hidden = false;
} else {
  document.querySelector("[data-for=curves]").remove();
}
if (data.shown.length) {
  startViewer();
  startGallery();
  if (metrics.length) {
    fill(find("case-metric"), metrics, data.metric);
    find("case-metric").addEventListener("change", showCases);
    showCases();
    find("cases").hidden = false;
  }
}
startCopying();
startPrinting();
