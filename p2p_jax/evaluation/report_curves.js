
"use strict";

// Training curves; report.js follows in the same script

const CHART = { width: 420, height: 200, left: 48, right: 12, top: 10, bottom: 22 };

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high * (1 + 1e-9 * Math.sign(high)); i++) found.push(i * step);
  return { found, step };
}

function tickLabels({ found, step }) {
  const largest = Math.max(...found.map(Math.abs));
  if (largest && (largest < 1e-2 || largest >= 1e6)) {
    return found.map((v) => (v === 0 ? "0" : String(Number(v.toPrecision(3)).toExponential())));
  }
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return found.map((v) => v.toFixed(digits));
}

function scales(points) {
  const ys = points.map(([, y]) => y).filter((y) => y !== null);
  let [low, high] = ys.length ? [Math.min(...ys), Math.max(...ys)] : [0, 1];
  const margin = (high - low) * 0.06 || Math.abs(low) * 0.1 || 1;
  [low, high] = [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
  const [first, last] = data.steps;
  const { width, height, left, right, top, bottom } = CHART;
  const x = (step) => left + ((step - first) / (last - first || 1)) * (width - left - right);
  const y = (value) => top + ((high - value) / (high - low)) * (height - top - bottom);
  return { x, y, low, high, first, last };
}

function drawAxes(svg, { x, y, low, high, first, last }) {
  const { width, height, left, right, bottom } = CHART;
  const vertical = ticks(low, high, 5);
  tickLabels(vertical).forEach((label, i) => {
    const at = y(vertical.found[i]);
    svg.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }));
    svg.append(draw("text", { x: left - 7, y: at + 4, "text-anchor": "end" }, label));
  });
  const thousands = last >= 10000;
  for (const step of last > first ? ticks(first, last, 5).found : [first]) {
    const text = thousands ? `${step / 1000}k` : step.toLocaleString("en");
    const anchor = x(step) > width - 25 ? "end" : "middle";
    svg.append(draw("text", { x: anchor === "end" ? width - right : x(step), y: height - bottom + 16, "text-anchor": anchor }, text));
  }
  const evaluated = data.results.step;
  if (evaluated >= first && evaluated <= last) {
    svg.append(draw("line", { class: "evaluated", x1: x(evaluated), x2: x(evaluated), y1: CHART.top, y2: height - bottom }));
  }
}

function drawSeries(svg, { name, points }, color, { x, y }) {
  let path = "";
  let pen = false;
  points.forEach(([step, value], i) => {
    if (value !== null) {
      path += `${pen ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
      const alone = !pen && (points[i + 1] ?? [0, null])[1] === null;
      if (alone || (name.startsWith("eval/") && points.length <= 60)) {
        svg.append(draw("circle", { class: color, cx: x(step), cy: y(value), r: 2.6 }));
      }
    }
    pen = value !== null;
  });
  svg.append(draw("path", { class: `line ${color}`, d: path }));
}

function makePanel({ title, series }) {
  const { width, height, left, top, bottom } = CHART;
  const scale = scales(series.flatMap(({ points }) => points));
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": `${title} by step` });
  drawAxes(svg, scale);
  series.forEach((one, i) => drawSeries(svg, one, `s${i % 6}`, scale));
  const cursor = draw("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
  const dots = series.map((_, i) => draw("circle", { class: `s${i % 6}`, r: 4, visibility: "hidden" }));
  svg.append(cursor, ...dots);

  const where = make("span", { role: "status" });
  const outputs = series.map(() => make("output"));
  const legend = make("ul", { className: "legend" }, ...series.map(({ name }, i) =>
    make("li", {}, make("i", { className: `s${i % 6}` }), make("span", {}, name), outputs[i])));
  const steps = [...new Set(series.flatMap(({ points }) => points.map(([step]) => step)))].sort((a, b) => a - b);

  // Each series shows its own row nearest to the step, and says so if that is another step.
  function read(at, hovered) {
    const step = steps[at];
    where.textContent = `step ${step.toLocaleString("en")}`;
    cursor.setAttribute("visibility", hovered ? "visible" : "hidden");
    cursor.setAttribute("x1", scale.x(step));
    cursor.setAttribute("x2", scale.x(step));
    series.forEach(({ points }, i) => {
      const [own, value] = points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a));
      outputs[i].textContent = format(value) + (own === step ? "" : ` at ${own.toLocaleString("en")}`);
      dots[i].setAttribute("visibility", hovered && value !== null ? "visible" : "hidden");
      dots[i].setAttribute("cx", scale.x(own));
      dots[i].setAttribute("cy", value === null ? 0 : scale.y(value));
    });
  }

  let at = steps.length - 1;
  read(at, false);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * width;
    at = steps.reduce((best, step, i) => (Math.abs(scale.x(step) - px) < Math.abs(scale.x(steps[best]) - px) ? i : best), 0);
    read(at, true);
  });
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    at = Math.min(Math.max(at + by, 0), steps.length - 1);
    read(at, true);
  });
  const rest = () => read((at = steps.length - 1), false);
  svg.addEventListener("pointerleave", rest);
  svg.addEventListener("blur", rest);
  return make("article", { className: "panel" }, make("h3", {}, title, where), svg, legend);
}

