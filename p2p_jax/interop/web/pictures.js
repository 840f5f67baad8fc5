// Converts pictures for a network and back, pixel for pixel like the Python library (p2p_jax.images, .inference.sizes).
// A picture is {data, width, height, channels}, row by row, channels last.

const f = Math.fround; // 32-bit numbers, as in NumPy

function rint(x) {
  const down = Math.floor(x);
  const rest = x - down;
  if (rest !== 0.5) return rest < 0.5 ? down : down + 1;
  return down % 2 ? down + 1 : down; // halves round to the even number
}

export function fromImageData({ data, width, height }) {
  const found = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; i < data.length; i += 4) {
    found[j++] = data[i];
    found[j++] = data[i + 1];
    found[j++] = data[i + 2];
  }
  return { data: found, width, height, channels: 3 };
}

export function toImageData({ data, width, height, channels }) {
  const found = new ImageData(width, height);
  const [green, blue] = channels === 1 ? [0, 0] : [1, 2];
  for (let i = 0, j = 0; i < data.length; i += channels, j += 4) {
    found.data[j] = data[i];
    found.data[j + 1] = data[i + green];
    found.data[j + 2] = data[i + blue];
    found.data[j + 3] = 255;
  }
  return found;
}

// ITU-R 601, in the order and with the digits of the library.
function luma({ data, width, height }) {
  const found = new Uint8Array(width * height);
  const [red, green, blue] = [f(0.2989), f(0.587), f(0.114)];
  for (let i = 0, j = 0; j < found.length; i += 3, j++) {
    found[j] = rint(f(f(f(data[i] * red) + f(data[i + 1] * green)) + f(data[i + 2] * blue)));
  }
  return { data: found, width, height, channels: 1 };
}

// --- sizes ---------------------------------------------------------------------------------------------------------

function cubic(x) {
  if (x >= 2) return 0;
  if (x >= 1) return f(f(f(f(f(f(f(-0.5 * x) + 2.5) * x) - 4) * x)) + 2);
  return f(f(f(f(f(f(1.5 * x) - 2.5) * x) * x)) + 1);
}

// For each of `want` pixels, which of the `have` pixels it uses, and their weights: Keys's kernel, antialiased.
function spans(have, want) {
  const shrunk = f(1 / f(f(want) / f(have)));
  const stretch = Math.max(shrunk, 1);
  const reach = f(2 * stretch);
  const clamp = (x) => Math.min(Math.max(x, 0), have - 1);
  return Array.from({ length: want }, (_, i) => {
    const middle = f(f(i + 0.5) * shrunk);
    const first = clamp(Math.ceil(f(f(middle - reach) - 0.5)));
    const last = clamp(Math.floor(f(f(middle + reach) - 0.5)));
    const weights = [];
    let total = 0;
    for (let place = first; place <= last; place++) {
      weights.push(cubic(f(Math.abs(f(f(place + 0.5) - middle)) * f(1 / stretch))));
      total = f(total + weights.at(-1));
    }
    return { first, weights: weights.map((weight) => f(weight * f(1 / total))) };
  });
}

function resizeRows(data, height, row, want) {
  const found = new Float32Array(want * row);
  spans(height, want).forEach(({ first, weights }, i) => {
    weights.forEach((weight, k) => {
      for (let j = 0; j < row; j++) found[i * row + j] += f(data[(first + k) * row + j] * weight);
    });
  });
  return found;
}

function swapped(data, height, width, channels) {
  const found = new data.constructor(data.length);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++) found[(x * height + y) * channels + c] = data[i++];
    }
  }
  return found;
}

// Resize whole numbers of 8 bits: bicubic and antialiased, or to the nearest pixel if colours cannot be mixed.
export function resize(picture, width, height, nearest = false) {
  const { data, channels } = picture;
  if (picture.width === width && picture.height === height) return picture;
  if (nearest) {
    const take = (have, want) => (i) => Math.min(Math.floor(f(f(i + 0.5) * f(f(have) / f(want)))), have - 1);
    const [row, column] = [take(picture.height, height), take(picture.width, width)];
    const found = new Uint8Array(width * height * channels);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const at = (row(y) * picture.width + column(x)) * channels;
        for (let c = 0; c < channels; c++) found[i++] = data[at + c];
      }
    }
    return { data: found, width, height, channels };
  }
  let numbers = resizeRows(data, picture.height, picture.width * channels, height);
  numbers = swapped(numbers, height, picture.width, channels);
  numbers = swapped(resizeRows(numbers, picture.width, height * channels, width), width, height, channels);
  return { data: Uint8Array.from(numbers, (x) => Math.min(Math.max(rint(x), 0), 255)), width, height, channels };
}

// Height and width that the network gets for an image of another size.
export function paddedSize(height, width, { steps, smallest }) {
  return [height, width].map((side, i) => Math.max(Math.ceil(side / steps[i]) * steps[i], smallest));
}

// Pad by reflection, at the right and the bottom.
export function pad(picture, height, width) {
  const { data, channels } = picture;
  if (picture.height === height && picture.width === width) return picture;
  const reflect = (have) => (i) => {
    if (have === 1) return 0;
    const place = i % (2 * have - 2);
    return place < have ? place : 2 * have - 2 - place;
  };
  const [row, column] = [reflect(picture.height), reflect(picture.width)];
  const found = new data.constructor(height * width * channels);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = (row(y) * picture.width + column(x)) * channels;
      for (let c = 0; c < channels; c++) found[i++] = data[at + c];
    }
  }
  return { data: found, width, height, channels };
}

export function cut(picture, height, width) {
  const { data, channels } = picture;
  const found = new data.constructor(height * width * channels);
  for (let y = 0; y < height; y++) {
    const start = y * picture.width * channels;
    found.set(data.subarray(start, start + width * channels), y * width * channels);
  }
  return { data: found, width, height, channels };
}

// --- domains: the meaning of pictures to a network------------------------------------------------------------------

// For every pixel the index of the nearest colour; of equal ones the first.
function nearest({ data, width, height }, colors) {
  const found = new Int32Array(width * height);
  const known = new Map();
  for (let i = 0, j = 0; j < found.length; i += 3, j++) {
    const key = (data[i] << 16) | (data[i + 1] << 8) | data[i + 2];
    let best = known.get(key);
    if (best === undefined) {
      let least = Infinity;
      colors.forEach(([red, green, blue], k) => {
        const distance = (data[i] - red) ** 2 + (data[i + 1] - green) ** 2 + (data[i + 2] - blue) ** 2;
        if (distance < least) [least, best] = [distance, k];
      });
      known.set(key, best);
    }
    found[j] = best;
  }
  return found;
}

function painted(places, colors, width, height) {
  const data = new Uint8Array(places.length * 3);
  places.forEach((place, i) => data.set(colors[place], i * 3));
  return { data, width, height, channels: 3 };
}

// The form of an RGB picture to resize, show and draw on: gray if the network takes gray.
export function prepared(picture, domain) {
  return domain.kind === "uint8" && domain.channels === 1 ? luma(picture) : picture;
}

export function isLabels(domain) {
  return domain.kind === "labels" || domain.kind === "label_colors";
}

// Convert an RGB picture to the network's input: [H, W, channels] of numbers in [-1, 1].
export function encode(picture, domain) {
  const { width, height } = picture;
  const { channels, low, high, colors } = domain;
  const found = new Float32Array(width * height * channels);
  if (domain.kind === "labels") {
    found.fill(-1);
    nearest(picture, [...colors, ...domain.void]).forEach((label, i) => {
      if (label < channels) found[i * channels + label] = 1;
    });
    return { data: found, width, height, channels };
  }
  if (domain.kind.startsWith("lab_")) return encodeLab(picture, domain);
  let pixels = picture;
  if (domain.kind === "label_colors" && colors) pixels = painted(nearest(picture, colors), colors, width, height);
  if (channels === 1 && picture.channels === 3) pixels = luma(picture);
  for (let i = 0; i < found.length; i++) {
    const half = (high[i % channels] - low[i % channels]) / 2;
    found[i] = Math.min(Math.max((pixels.data[i] - low[i % channels]) / half - 1, -1), 1);
  }
  return { data: found, width, height, channels };
}

// Convert the network's output to a picture: `given` is the picture that was translated.
export function decode(output, domain, given) {
  const { data, width, height, channels } = output;
  const { low, high, colors } = domain;
  if (domain.kind === "labels") {
    const places = new Int32Array(width * height);
    for (let i = 0; i < places.length; i++) {
      for (let c = 1; c < channels; c++) {
        if (data[i * channels + c] > data[i * channels + places[i]]) places[i] = c;
      }
    }
    return painted(places, colors, width, height);
  }
  if (domain.kind.startsWith("lab_")) return decodeLab(output, domain, given);
  const found = new Uint8Array(data.length);
  for (let i = 0; i < data.length; i++) {
    const half = (high[i % channels] - low[i % channels]) / 2;
    const number = (Math.min(Math.max(data[i], -1), 1) + 1) * half + low[i % channels];
    found[i] = Math.min(Math.max(rint(f(number)), 0), 255);
  }
  const picture = { data: found, width, height, channels };
  if (domain.kind === "label_colors" && colors) return painted(nearest(picture, colors), colors, width, height);
  return picture;
}

// --- CIE Lab (p2p_jax.images.lab) ----------------------------------------------------------------------------------

const WHITE = [0.95047, 1, 1.08883];
const XYZ = [[0.412453, 0.35758, 0.180423], [0.212671, 0.71516, 0.072169], [0.019334, 0.119193, 0.950227]];
const RGB = inverse(XYZ);
const SLACK = 1e-4;

function inverse([[a, b, c], [d, e, g], [h, i, j]]) {
  const by = a * (e * j - g * i) - b * (d * j - g * h) + c * (d * i - e * h);
  return [
    [e * j - g * i, c * i - b * j, b * g - c * e],
    [g * h - d * j, a * j - c * h, c * d - a * g],
    [d * i - e * h, b * h - a * i, a * e - b * d],
  ].map((row) => row.map((x) => x / by));
}

const times = (matrix, vector) => matrix.map((row) => row[0] * vector[0] + row[1] * vector[1] + row[2] * vector[2]);

function toLab(red, green, blue) {
  const light = [red, green, blue].map((x) => x / 255).map((x) => (x > 0.04045 ? ((x + 0.055) / 1.055) ** 2.4 : x / 12.92));
  const [x, y, z] = times(XYZ, light)
    .map((v, i) => v / WHITE[i])
    .map((v) => (v > 0.008856 ? Math.cbrt(v) : 7.787 * v + 16 / 116));
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

function lightOf(l, a, b) {
  const y = (l + 16) / 116;
  const xyz = [y + a / 500, y, y - b / 200].map((v, i) => (v > 0.2068966 ? v ** 3 : (v - 16 / 116) / 7.787) * WHITE[i]);
  return times(RGB, xyz);
}

// Colours that a screen cannot show become weaker, and keep lightness and hue.
function fromLab(l, a, b) {
  l = Math.min(Math.max(l, 0), 100);
  const fits = (by) => lightOf(l, a * by, b * by).every((x) => x >= -SLACK && x <= 1 + SLACK);
  let by = 1;
  if (!fits(1)) {
    let [low, high] = [0, 1];
    for (let i = 0; i < 12; i++) {
      const middle = (low + high) / 2;
      if (fits(middle)) low = middle;
      else high = middle;
    }
    by = low;
  }
  return lightOf(l, a * by, b * by)
    .map((x) => (x > 0.0031308 ? 1.055 * x ** (1 / 2.4) - 0.055 : 12.92 * x))
    .map((x) => rint(Math.min(Math.max(x, 0), 1) * 255));
}

const part = (domain, lab) => (domain.kind === "lab_l" ? lab.slice(0, 1) : lab.slice(1));

function encodeLab({ data, width, height }, domain) {
  const { channels, low, high } = domain;
  const found = new Float32Array(width * height * channels);
  for (let i = 0, j = 0; i < data.length; i += 3) {
    part(domain, toLab(data[i], data[i + 1], data[i + 2])).forEach((x, c) => {
      found[j++] = Math.min(Math.max((x - low[c]) / ((high[c] - low[c]) / 2) - 1, -1), 1);
    });
  }
  return { data: found, width, height, channels };
}

// L and ab make one picture, from whichever was given; an L by itself is gray.
function decodeLab({ data, width, height, channels }, { kind, low, high }, given) {
  const found = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    const own = low.map((x, c) => (Math.min(Math.max(data[i * channels + c], -1), 1) + 1) * ((high[c] - x) / 2) + x);
    const [l, a, b] = given.isLab ? toLab(...given.data.subarray(i * 3, i * 3 + 3)) : [60, 0, 0];
    found.set(fromLab(...(kind === "lab_l" ? [own[0], a, b] : [l, ...own])), i * 3);
  }
  return { data: found, width, height, channels: 3 };
}
