// The pad of p2p_jax.notebook.DrawingPad: rectangles and freehand strokes in exact colours, without smoothed edges.
const BRUSH = 0.03; // of the picture's width

function render({ model, el }) {
  const root = document.createElement("div");
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const colors = model.get("_colors");
  let [color, tool, before, last] = [colors[0][1], "rectangle", null, null];

  function choices(values, choose) {
    const row = document.createElement("div");
    for (const [name, background] of values) {
      const button = document.createElement("button");
      button.textContent = name;
      button.style.cssText = "margin: 2px; padding: 2px 6px; border: 3px solid transparent; cursor: pointer;";
      if (background) button.style.cssText += `background: ${background}; color: white; text-shadow: 0 0 3px black;`;
      button.onclick = () => {
        for (const other of row.children) other.style.borderColor = "transparent";
        if (choose(name, background)) button.style.borderColor = "black";
      };
      row.append(button);
    }
    row.firstChild.style.borderColor = "black";
    return row;
  }

  function load(url) {
    const picture = new Image();
    picture.onload = () => {
      [canvas.width, canvas.height] = [picture.width, picture.height];
      canvas.style.width = `${picture.width * model.get("_scale")}px`;
      context.drawImage(picture, 0, 0);
    };
    picture.src = url;
  }

  function send() {
    model.set("_drawn", canvas.toDataURL("image/png"));
    model.save_changes();
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [
      Math.round(((event.clientX - box.left) / box.width) * canvas.width),
      Math.round(((event.clientY - box.top) / box.height) * canvas.height),
    ];
  }

  // Whole pixels of one colour, also along a stroke: a canvas smooths every line, and mixed colours are no labels.
  function fill([x0, y0], [x1, y1]) {
    context.fillStyle = color;
    context.fillRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
  }

  function stroke([x0, y0], [x1, y1]) {
    const steps = Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0), 1);
    const half = Math.max(Math.round((canvas.width * BRUSH) / 2), 1);
    for (let i = 0; i <= steps; i++) {
      const [x, y] = [Math.round(x0 + ((x1 - x0) * i) / steps), Math.round(y0 + ((y1 - y0) * i) / steps)];
      fill([x - half, y - half], [x + half, y + half]);
    }
  }

  canvas.style.cssText = "image-rendering: pixelated; cursor: crosshair; touch-action: none; border: 1px solid gray;";
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    before = context.getImageData(0, 0, canvas.width, canvas.height);
    if (tool === "brush") stroke(last, last);
  };
  canvas.onpointermove = (event) => {
    if (!before) return;
    const now = place(event);
    if (tool === "brush") {
      stroke(last, now);
      last = now;
    } else {
      context.putImageData(before, 0, 0);
      fill(last, now);
    }
  };
  canvas.onpointerup = canvas.onpointercancel = () => {
    before = null;
    send();
  };

  const palette = choices(colors, (_, background) => (color = background));
  const tools = choices([["rectangle"], ["brush"], ["start again"]], (name) => {
    if (name !== "start again") return (tool = name);
    load(model.get("_start"));
    model.set("_drawn", model.get("_start"));
    model.save_changes();
    tool = "rectangle";
    tools.firstChild.style.borderColor = "black";
    return false;
  });
  root.append(palette, tools, canvas);
  el.append(root);
  load(model.get("_drawn"));
}

export default { render };
