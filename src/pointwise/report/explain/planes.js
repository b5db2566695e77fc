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

const BLOCK_GAP = 4;

/** Where column j of a grid begins, in pixels; blocks of so many columns have a gap between them. */
const columnAt = ({cell, block}, j) => j * cell + (block ? Math.floor(j / block) * BLOCK_GAP : 0);

/** How wide the columns of a grid are together. */
const gridWidth = ({columns, cell, block}) => columnAt({cell, block}, columns - 1) + cell;

/** The row and column under the pointer, in a canvas that drawGrid has drawn. */
function cellAt({grid}, {offsetX, offsetY}) {
  const wide = grid.block ? grid.block * grid.cell + BLOCK_GAP : Infinity;
  const x = offsetX - 2, before = Math.floor(x / wide) || 0;
  const within = Math.floor((grid.block ? x - before * wide : x) / grid.cell);
  return {i: Math.floor((offsetY - 2) / grid.tall), j: before * (grid.block || 0) + (grid.block ? Math.min(within, grid.block - 1) : within)};
}

/**
 * Draws a grid of values. value(i, j) is a number, null for what is not computed yet, or undefined for the zeros of
 * the padding; font is the size in which numbers are written, 0 for none; marks is a list of {i, j} with a frame
 * each, box a frame around several (with a label, where numbers are not written), and faint (or faint(i, j)) pales what does not take part. The colours reach to
 * ±most, or ±most(i) in row i. After every `block` columns there is a gap.
 */
function drawGrid(canvas, {rows, columns, cell, tall = cell, font = 0, value, most, marks = [], box = null, faint = false, block = 0}) {
  const context = sized(canvas, gridWidth({columns, cell, block}) + 4, rows * tall + 4);
  canvas.grid = {cell, tall, block};
  context.translate(2, 2);
  const gap = Math.min(cell, tall) >= 8 ? 1 : 0;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) {
      const what = value(i, j);
      const [x, y] = [columnAt({cell, block}, j), i * tall];
      const pale = typeof faint === "function" ? faint(i, j) : faint;
      if (what === undefined) drawPadding(context, x, y, cell, tall, gap);
      else if (what === null) drawEmpty(context, x, y, cell, tall, gap);
      else {
        const reach = typeof most === "function" ? most(i) : most;
        const color = shade(what, pale ? 4 * reach : reach);
        context.fillStyle = cssColor(color);
        context.fillRect(x, y, cell - gap, tall - gap);
        if (!font) continue;
        context.font = `${font}px ${CELL_FONT}`;
        context.fillStyle = pale ? COLORS.muted : textOn(color);
        context.fillText(written(what, cell - 2, font), x + (cell - gap) / 2, y + (tall - gap) / 2 + 0.5);
      }
    }
  for (const {i, j, color} of marks)
    frame(context, columnAt({cell, block}, j), i * tall, cell - gap, tall - gap, color || COLORS.mark, 1.5);
  if (!box) return;
  const [x, y] = [columnAt({cell, block}, box.j), box.i * tall];
  frame(context, x, y, box.columns * cell - gap, box.rows * tall - gap, COLORS.mark, 3);
  if (box.label && !font) drawLabel(context, box.label, x, y, cell, tall, gridWidth({columns, cell, block}));
}

/** A number beside a cell that is too small for it: above it, or below in the first row. */
function drawLabel(context, text, x, y, cell, tall, width) {
  context.font = `600 12px ${CELL_FONT}`;
  const half = context.measureText(text).width / 2 + 4, middle = Math.max(half, Math.min(width - half, x + cell / 2));
  const at = y >= 20 ? y - 11 : y + tall + 11;
  context.fillStyle = COLORS.mark;
  context.fillRect(middle - half, at - 8.5, 2 * half, 17);
  context.fillStyle = textOn(bytesOf(COLORS.mark));
  context.fillText(text, middle, at + 0.5);
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

const CELL_FONT = "system-ui, sans-serif", LEAST_FONT = 7.5;
const widths = new Map();  // of numbers, written 10 pixels high

function widthOf(text) {
  if (!widths.has(text)) {
    const context = document.createElement("canvas").getContext("2d");
    context.font = `10px ${CELL_FONT}`;
    widths.set(text, context.measureText(text).width);
  }
  return widths.get(text);
}

/** A value with as many digits behind the point as a cell has room for. */
function written(value, room, font) {
  for (let digits = 3; digits > 0; digits--) {
    const text = num(value, digits);
    if (widthOf(text) * font / 10 <= room) return text;
  }
  return num(value, 0);
}

/**
 * The size of writing with which all values fit into cells; 0 where it would be too small. Values that are not to be
 * `exact` are rounded where need be.
 */
function fittingFont(values, cell, exact = false) {
  const all = [...new Set(values.flat(Infinity))];
  const most = Math.min(13, cell * 0.62);
  const widest = digits => Math.max(...all.map(value => widthOf(num(value, digits))));
  const whole = 10 * (cell - 2) / widest(3);
  if (whole >= (exact ? LEAST_FONT : 9)) return Math.min(most, whole);
  const rounded = exact ? 0 : Math.min(most, 10, 10 * (cell - 2) / widest(0));
  return rounded < LEAST_FONT ? 0 : rounded;
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
