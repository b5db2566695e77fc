// The picture of a cloud's convolution: the cloud in 3-d, the cells of the step's kernel as a table, and
// features as strips, a row for each channel and a column for each point.

const VIEW_BUTTONS = [
  ["left", "Turn left", "M15 5l-7 7 7 7"], ["right", "Turn right", "M9 5l7 7-7 7"],
  ["up", "Turn up", "M5 15l7-7 7 7"], ["down", "Turn down", "M5 9l7 7 7-7"],
  ["nearer", "Nearer", "M12 5v14M5 12h14"], ["farther", "Farther", "M5 12h14"],
  ["back", "As at first", "M5 12a7 7 0 1 0 3-5.7M8 2v5h5"],
];

const STRIP_ROW = 18;

/** Makes view, table and strips for a plan inside the stage; pick(step) is called for a click. */
function buildCloud(stage, plan, pick, view = null) {
  const first = plan.layers[0];
  const canvas = element("canvas", {
    id: "view", tabindex: "0", role: "application", "aria-roledescription": "view in 3-d",
    "aria-label": "The cloud, the point of the step and its kernel cells. Arrow keys turn, plus and minus bring nearer and farther, 0 puts back, comma and full stop step.",
  });
  const scene = {plan, current: null};
  scene.view = makeView(canvas, first, point => pick(stepOf(scene.current.layer, scene.current.channel, point)));
  if (view) Object.assign(scene.view, {yaw: view.yaw, pitch: view.pitch, zoom: view.zoom});
  const buttons = VIEW_BUTTONS.map(([how, label, path]) => {
    const button = element("button", {type: "button", class: "icon", "data-turn": how, "aria-label": label, title: label});
    button.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${path}"/></svg>`;
    button.addEventListener("click", () => turnView(scene.view, how));
    return button;
  });
  scene.table = element("table", {class: "cells"});
  scene.note = element("p", {class: "note"});
  const space = element("div", {class: "space"}, canvas, element("div", {class: "turn", role: "group", "aria-label": "Turn the cloud"}, ...buttons));
  scene.side = element("div", {class: "side"},
    element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "Occupied cells of the kernel"}, scene.table), scene.note);
  scene.strips = [];
  for (let n = 0; n <= plan.layers.length; n++) scene.strips.push(makeStrip(plan, n, pick));
  stage.replaceChildren(element("div", {class: "cloud"}, space, scene.side), ...scene.strips.map(strip => strip.element));
  scene.mostWeight = largest(first.weight);
  return scene;
}

function makeStrip(plan, n, pick) {
  const source = plan.layers[n - 1];
  const strip = {source, title: element("h2", {id: `band-${n}`, class: "band-title"}), canvas: element("canvas", {role: "img", class: "strip"})};
  strip.values = source ? source.values : plan.layers[0].x[0].map((_, c) => plan.layers[0].x.map(row => row[c]));
  strip.most = largest(strip.values);
  strip.element = element("div", {class: "band", role: "group", "aria-labelledby": `band-${n}`}, strip.title, strip.canvas);
  const title = !source ? "Input" : n < plan.layers.length ? "Middle" : "Output";
  const name = source ? outputName(plan, n - 1) : "x";
  strip.title.append(title, element("code", {}, `${name} [${strip.values[0].length}, ${strip.values.length}]`),
    element("span", {class: "below"}, "a row for each channel, a column for each point"));
  if (source) {
    makeWalkable(strip.element);
    strip.canvas.classList.add("pick");
    strip.canvas.addEventListener("click", event => {
      const [o, p] = [Math.floor((event.offsetY - 2) / strip.tall), Math.floor((event.offsetX - 2) / strip.cell)];
      if (o >= 0 && p >= 0 && o < source.channelsOut && p < source.positions) pick(stepOf(source, o, p));
    });
  }
  return strip;
}

/** Draws one step into what buildCloud made. */
function drawCloud(scene, plan, place, terms, width, height) {
  scene.current = place;
  const first = plan.layers[0];
  const mixing = place.layer.kind === "mix";
  const occupied = mixing ? [] : first.table[place.position].map(({cell, members}, i) =>
    ({cell, members, color: COLORS.cells[i % COLORS.cells.length]}));
  const beside = width >= 620;
  const side = beside ? Math.floor(width * (width < 760 ? 0.5 : 0.54)) : width;
  const settings = mixing ? {...plan.settings, kernel: 1} : plan.settings;
  const strips = scene.strips.reduce((sum, {values}) => sum + STRIP_ROW * values.length + 44, 0);
  const tall = beside ? Math.max(260, Math.min(460, height - strips)) : 300;
  scene.side.style.setProperty("--tall", `${tall - 48}px`);
  scene.view.redraw = () => drawView(scene.view, place.position, occupied, settings, side, tall);
  scene.view.redraw();
  writeCells(scene, plan, place, terms, occupied);
  scene.strips.forEach((strip, n) => drawStrip(strip, n, plan, place, terms, occupied, width));
}

/** A row for each occupied cell: whose mean meets which weight in every channel. */
function writeCells(scene, plan, place, terms, occupied) {
  const {layer} = place;
  if (layer.kind === "mix") {
    const rows = terms.map(term => element("tr", {}, element("th", {scope: "row"}, String(term.channel)),
      element("td", {}, num(term.value)), element("td", {}, bracketed(term.weight)), element("td", {}, num(term.product))));
    scene.table.replaceChildren(element("caption", {}, "The channels of the point"), headOf(["channel", "z", "× weight", "= product"]), element("tbody", {}, ...rows));
    scene.note.textContent = "The second half looks at one point only: its channels are mixed.";
    return;
  }
  const channels = layer.depthwise ? [place.channel] : layer.x[0].map((_, c) => c);
  const rows = occupied.map(({cell, members, color}) => {
    const swatch = element("span", {class: "swatch"});
    swatch.style.background = color;
    const own = terms.filter(term => term.cell === cell);
    return element("tr", {}, element("th", {scope: "row"}, swatch, String(cell)), element("td", {}, String(members.length)),
      ...own.map(term => element("td", {}, `${num(term.value)} × ${bracketed(term.weight)}`)),
      element("td", {class: "sum"}, num(sumOf(own))));
  });
  scene.table.replaceChildren(
    element("caption", {}, "Mean of the cell × its weight"),
    headOf(["cell", "points", ...channels.map(c => `channel ${c}`), "sum"]), element("tbody", {}, ...rows));
  const empty = layer.kernel ** 3 - occupied.length;
  scene.note.textContent = `${counted(empty, "empty cell")} add${empty === 1 ? "s" : ""} nothing. ` +
    `Cell ${(layer.kernel ** 3 - 1) / 2} is the middle one, around the point itself.`;
}

const headOf = names => element("thead", {}, element("tr", {}, ...names.map(name => element("th", {scope: "col"}, name))));

function drawStrip(strip, n, plan, place, terms, occupied, width) {
  const {source, values} = strip;
  const points = values[0].length, channels = values.length;
  strip.cell = Math.max(3, Math.min(24, Math.floor((width - 4) / points)));
  strip.tall = STRIP_ROW;
  const marks = [];
  if (plan.layers[n] === place.layer) {
    const read = new Set(terms.map(term => term.channel));
    if (place.layer.kind === "mix") for (const c of read) marks.push({i: c, j: place.position});
    for (const {members, color} of occupied) for (const j of members) for (const c of read) marks.push({i: c, j, color});
  }
  const current = source === place.layer;
  const box = current ? {i: place.channel, j: place.position, rows: 1, columns: 1} : null;
  const done = channel => (source ? doneUpTo(source, channel, place) : Infinity);
  drawGrid(strip.canvas, {
    rows: channels, columns: points, cell: strip.cell, tall: strip.tall, most: strip.most, marks, box,
    value: (c, p) => (p <= done(c) ? values[c][p] : null),
  });
  const what = current ? `point ${place.position}, channel ${place.channel} is computed`
    : marks.length ? `${counted(marks.length, "value")} read` : "";
  strip.canvas.setAttribute("aria-label", `${counted(channels, "channel")} of ${counted(points, "point")}${what && ": " + what}`);
}
