// A canvas to draw on, in exact colours and without smoothed edges: mixed colours are no labels.
// The notebooks' pad (drawing_pad.js) and the page of `export --format web` share it.
const MOST_STEPS = 20; // that can be undone

export class Drawing {
  // What is drawn with; `width` is in pixels of the picture.
  tool = "brush"; // or "line", "rectangle"
  color = "#000000";
  width = 5;
  // Called with this drawing after every change that is done, and whenever the place of the keyboard moves.
  changed = () => {};
  moved = () => {};

  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.earlier = [];
    this.before = this.from = null; // the picture and the place at which a stroke began
    this.place = null; // of the keyboard
    canvas.style.touchAction = "none";
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", () => this.#up());
    canvas.addEventListener("pointercancel", () => this.#up());
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  get picture() {
    return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }

  // Take a picture in place of what is drawn; what was there can be had back, whatever its size.
  load(picture) {
    if (this.canvas.width && this.canvas.height) this.#keep();
    this.#show(picture);
    this.changed(this);
  }

  // Fill the whole picture with one colour.
  clear(color) {
    this.#keep();
    this.context.fillStyle = color;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.changed(this);
  }

  get canUndo() {
    return this.earlier.length > 0;
  }

  undo() {
    if (!this.canUndo) return;
    this.#show(this.earlier.pop());
    this.changed(this);
  }

  // Forget what could be undone, as where another picture is begun with.
  forget() {
    this.earlier = [];
  }

  #show(picture) {
    if (this.canvas.width !== picture.width) this.canvas.width = picture.width;
    if (this.canvas.height !== picture.height) this.canvas.height = picture.height;
    this.context.putImageData(picture, 0, 0);
  }

  #keep() {
    this.earlier.push(this.picture);
    if (this.earlier.length > MOST_STEPS) this.earlier.shift();
  }

  // The picture's pixel under a pointer: of its content, as the canvas may have a border.
  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const [left, top] = [box.left + this.canvas.clientLeft, box.top + this.canvas.clientTop];
    return [
      Math.round(((event.clientX - left) / this.canvas.clientWidth) * this.canvas.width),
      Math.round(((event.clientY - top) / this.canvas.clientHeight) * this.canvas.height),
    ];
  }

  #down(event) {
    if (event.button > 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.#keep();
    this.from = this.#at(event);
    this.before = this.earlier.at(-1);
    if (this.tool === "brush") this.#stroke(this.from, this.from);
  }

  #move(event) {
    if (this.before) this.#draw(this.#at(event));
  }

  #draw(to) {
    if (this.tool === "brush") {
      this.#stroke(this.from, to);
      this.from = to;
      return;
    }
    this.context.putImageData(this.before, 0, 0);
    if (this.tool === "line") this.#stroke(this.from, to);
    else this.#fill(this.from, to);
  }

  #up() {
    if (!this.before) return;
    this.before = this.from = null;
    this.changed(this);
  }

  // Arrows move a place; Space draws a point, or both ends of a line or a rectangle; with Shift arrows draw.
  #key(event) {
    const step = Math.max(Math.round(this.width / 2), 1);
    const ways = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const way = ways[event.key];
    if ((!way && event.key !== " ") || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const { width, height } = this.canvas;
    const from = this.place ?? [Math.round(width / 2), Math.round(height / 2)];
    const [x, y] = way ?? [0, 0];
    this.place = [Math.min(Math.max(from[0] + x, 0), width), Math.min(Math.max(from[1] + y, 0), height)];
    if (this.before) {
      this.#draw(this.place);
      if (!way) this.#up();
    } else if (!way || (event.shiftKey && this.tool === "brush")) {
      this.#keep();
      if (this.tool === "brush") {
        this.#stroke(from, this.place);
        this.changed(this);
      } else [this.before, this.from] = [this.earlier.at(-1), this.place];
    }
    this.moved(this);
  }

  // Whole pixels of one colour, also along a stroke: a canvas smooths every line.
  #fill([x0, y0], [x1, y1]) {
    this.context.fillStyle = this.color;
    this.context.fillRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
  }

  #stroke([x0, y0], [x1, y1]) {
    const steps = Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0), 1);
    for (let i = 0; i <= steps; i++) {
      this.#dot(Math.round(x0 + ((x1 - x0) * i) / steps), Math.round(y0 + ((y1 - y0) * i) / steps));
    }
  }

  // A disc, row by row.
  #dot(x, y) {
    const [first, radius] = [-Math.floor(this.width / 2), this.width / 2];
    for (let row = first; row < first + this.width; row++) {
      const half = Math.sqrt(Math.max(radius ** 2 - (row - first + 0.5 - radius) ** 2, 0));
      const [left, right] = [Math.round(first + radius - half), Math.round(first + radius + half)];
      this.#fill([x + left, y + row], [x + Math.max(right, left + 1), y + row + 1]);
    }
  }
}
