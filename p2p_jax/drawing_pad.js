// The pad of p2p_jax.notebook.DrawingPad: rectangles and freehand strokes. It stands behind drawing.js, in one module.
const BRUSH = 0.03; // of the picture's width

function render({ model, el }) {
  const root = document.createElement("div");
  const canvas = document.createElement("canvas");
  const drawing = new Drawing(canvas);
  const colors = model.get("_colors");
  [drawing.color, drawing.tool] = [colors[0][1], "rectangle"];

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
      drawing.width = 2 * Math.max(Math.round((canvas.width * BRUSH) / 2), 1);
      drawing.context.drawImage(picture, 0, 0);
    };
    picture.src = url;
  }

  drawing.changed = () => {
    model.set("_drawn", canvas.toDataURL("image/png"));
    model.save_changes();
  };

  canvas.style.cssText = "image-rendering: pixelated; cursor: crosshair; touch-action: none; border: 1px solid gray;";

  const palette = choices(colors, (_, background) => (drawing.color = background));
  const tools = choices([["rectangle"], ["brush"], ["start again"]], (name) => {
    if (name !== "start again") return (drawing.tool = name);
    load(model.get("_start"));
    model.set("_drawn", model.get("_start"));
    model.save_changes();
    drawing.tool = "rectangle";
    tools.firstChild.style.borderColor = "black";
    return false;
  });
  root.append(palette, tools, canvas);
  el.append(root);
  load(model.get("_drawn"));
}

export default { render };
