// Channels as grids of cells on a canvas: blue for positive values, orange for negative ones, stronger
// for larger ones; what takes part in a step has a frame. Colours come from style.css.

let COLORS = {};

/** Reads the colours of the current scheme, light or dark. */
function readColors() {
  const style = getComputedStyle(document.documentElement);
  const names = ["surface", "ink", "muted", "line", "empty", "positive", "negative", "mark", "halo"];
  COLORS = Object.fromEntries(names.map(name => [name, style.getPropertyValue(`--${name}`).trim()]));
  COLORS.cells = style.getPropertyValue("--cells").trim().split(/\s+/);
}

const bytesOf = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));

/** The share of light that a colour gives, 0 to 1 (WCAG's relative luminance). */
function luminance(rgb) {
  const [r, g, b] = rgb.map(byte => {
    const part = byte / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** The colour of a value in a plane whose values reach to ±most. */
function shade(value, most) {
  const from = bytesOf(COLORS.surface), to = bytesOf(value < 0 ? COLORS.negative : COLORS.positive);
  const strength = most > 0 ? Math.min(1, Math.abs(value) / most) : 0;
  return from.map((byte, i) => Math.round(byte + (to[i] - byte) * strength));
}

/** Black or white, whichever reads better on a colour: at least 4.5 to 1 on any. */
const textOn = rgb => (luminance(rgb) > 0.179 ? "#000000" : "#ffffff");

const cssColor = rgb => `rgb(${rgb.join(" ")})`;

/** Makes a canvas so many pixels large, sharp on any screen; returns its context. */
function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/**
 * Draws a grid of values. value(i, j) is a number, null for what is not computed yet, or undefined for
 * the zeros of the padding; font is the size in which numbers are written, 0 for none; marks is a list of {i, j} with a frame each, and box a frame around them all.
 */
function drawGrid(canvas, {rows, columns, cell, tall = cell, font = 0, value, most, marks = [], box = null, faint = false}) {
  const context = sized(canvas, columns * cell + 4, rows * tall + 4);
  context.translate(2, 2);
  context.globalAlpha = faint ? 0.35 : 1;
  const gap = Math.min(cell, tall) >= 8 ? 1 : 0;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) {
      const what = value(i, j);
      const [x, y] = [j * cell, i * tall];
      if (what === undefined) drawPadding(context, x, y, cell, tall, gap);
      else if (what === null) drawEmpty(context, x, y, cell, tall, gap);
      else {
        const color = shade(what, most);
        context.fillStyle = cssColor(color);
        context.fillRect(x, y, cell - gap, tall - gap);
        if (!font) continue;
        context.font = `${font}px system-ui, sans-serif`;
        context.fillStyle = textOn(color);
        context.fillText(num(what), x + (cell - gap) / 2, y + (tall - gap) / 2 + 0.5);
      }
    }
  context.globalAlpha = 1;
  for (const {i, j, color} of marks)
    frame(context, j * cell, i * tall, cell - gap, tall - gap, color || COLORS.mark, 1.5);
  if (box) frame(context, box.j * cell, box.i * tall, box.columns * cell - gap, box.rows * tall - gap, COLORS.mark, 3);
}

function drawPadding(context, x, y, width, height, gap) {
  context.strokeStyle = COLORS.line;
  context.lineWidth = 1;
  context.strokeRect(x + 0.5, y + 0.5, width - gap - 1, height - gap - 1);
  if (width >= 13) {
    context.fillStyle = COLORS.muted;
    context.font = `${Math.min(12, width * 0.6)}px system-ui, sans-serif`;
    context.fillText("0", x + (width - gap) / 2, y + (height - gap) / 2 + 0.5);
  }
}

function drawEmpty(context, x, y, width, height, gap) {
  context.fillStyle = COLORS.empty;
  context.fillRect(x, y, width - gap, height - gap);
}

/** The size of writing with which every one of the values fits into a cell; 0 where it would be too small. */
function fittingFont(values, cell) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = "10px system-ui, sans-serif";
  const widest = Math.max(...[...new Set(values.flat(Infinity))].map(value => context.measureText(num(value)).width));
  const size = Math.min(13, cell * 0.62, 10 * (cell - 2) / widest);
  return size < 7.5 ? 0 : size;
}

/** A frame with a halo, so that it shows on any colour. */
function frame(context, x, y, width, height, color, line) {
  context.strokeStyle = COLORS.halo;
  context.lineWidth = line + 1.5;
  context.strokeRect(x, y, width, height);
  context.strokeStyle = color;
  context.lineWidth = line;
  context.strokeRect(x, y, width, height);
}

/** The largest absolute value in nested lists. */
function largest(values) {
  let most = 0;
  for (const value of values.flat(Infinity)) most = Math.max(most, Math.abs(value));
  return most;
}
