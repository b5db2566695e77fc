// The picture of a cloud's convolution, or of its gradients: the cloud in 3-d, what meets in the step as a table, and
// features as strips, a row for each channel and a column for each point (of weights, for each cell).

const VIEW_BUTTONS = [
  ["left", "Turn left", "M15 5l-7 7 7 7"], ["right", "Turn right", "M9 5l7 7-7 7"],
  ["up", "Turn up", "M5 15l7-7 7 7"], ["down", "Turn down", "M5 9l7 7 7-7"],
  ["nearer", "Nearer", "M12 5v14M5 12h14"], ["farther", "Farther", "M5 12h14"],
  ["back", "As at first", "M5 12a7 7 0 1 0 3-5.7M8 2v5h5"],
];

const STRIP_ROW = 19;

/** Makes view, table and strips for a plan inside the stage; pick(step) is called for a click. */
function buildCloud(stage, plan, pick, view = null) {
  const first = plan.layers[0];
  const canvas = element("canvas", {
    id: "view", tabindex: "0", role: "application", "aria-roledescription": "view in 3-d",
    "aria-label": "The cloud, the point of the step and its kernel cells. Arrow keys turn, plus and minus bring nearer and farther, 0 puts back, comma and full stop step.",
  });
  const scene = {plan, current: null};
  scene.view = makeView(canvas, first, point => {
    const {layer, channel} = scene.current;
    if (!layer.kind.endsWith("Weight")) pick(stepOf(layer, channel, point));
  });
  if (view) Object.assign(scene.view, {yaw: view.yaw, pitch: view.pitch, zoom: view.zoom});
  const buttons = VIEW_BUTTONS.map(([how, label, path]) => {
    const button = element("button", {type: "button", class: "icon", "data-turn": how, "aria-label": label, title: label});
    button.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${path}"/></svg>`;
    button.addEventListener("click", () => turnView(scene.view, how));
    return button;
  });
  scene.table = element("table", {class: "cells"});
  scene.note = element("p", {class: "note"});
  const turn = element("div", {class: "turn", role: "group", "aria-label": "Turn the cloud"}, ...buttons);
  scene.side = element("div", {class: "side"},
    element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "Occupied cells of the kernel"}, scene.table), scene.note, turn);
  scene.strips = bandsOf(plan).map((band, n) => makeStrip(plan, band, n, pick));
  stage.replaceChildren(element("div", {class: "cloud"}, canvas, scene.side), ...scene.strips.map(strip => strip.element));
  return scene;
}

/** The values of a strip, [channel][column]. */
function stripValues({layer, source}) {
  if (source) return source.values;
  if (layer.kind.endsWith("Input")) return layer.gradient;
  return asChannels(layer.x ?? layer.layer.x);
}

const asChannels = features => features[0].map((_, c) => features.map(row => row[c]));

function makeStrip(plan, {layer, source}, n, pick) {
  const values = stripValues({layer, source}), ofWeights = Boolean(source) && source.kind.endsWith("Weight");
  const strip = {
    layer, source, values, most: values.map(largest), canvas: element("canvas", {role: "img", class: "strip"}),
    block: ofWeights && source.kind === "cellsWeight" ? source.layer.kernel ** 3 : 0,
  };
  const name = source ? source.names.output : layer.names.input;
  const shape = source ? shapeOf(plan, source) : [values[0].length, values.length];
  const columns = !ofWeights ? "point" : strip.block ? "cell, channel by channel" : "input channel";
  const title = element("h2", {id: `band-${n}`, class: "band-title"}, BAND_TITLES[name] ?? "Gradient",
    element("code", {}, `${name} [${shape.join(", ")}]`),
    element("span", {class: "below"}, `a row for each channel, in its own scale; a column for each ${columns}`));
  strip.element = element("div", {class: "band", role: "group", "aria-labelledby": `band-${n}`}, title, element("div", {class: "scroll"}, strip.canvas));
  strip.canvas.addEventListener("pointermove", event => {
    const {i, j} = cellAt(strip.canvas, event), value = values[i]?.[j];
    const index = source ? indexAt(source, i, j) : `${name}[${j}, ${i}]`;
    strip.canvas.title = value === undefined || (source && j > strip.done(i)) ? "" : `${index} = ${num(value)}`;
  });
  if (source) {
    makeWalkable(strip.element);
    strip.canvas.classList.add("pick");
    strip.canvas.addEventListener("click", event => {
      const {i: o, j: p} = cellAt(strip.canvas, event);
      if (o >= 0 && p >= 0 && o < source.channelsOut && p < source.positions) pick(stepOf(source, o, p));
    });
  }
  return strip;
}

/** Which points a step looks at, cell by cell: {cell: where its cube is drawn, label: its number, members, color}. */
function cellsOfStep({layer, position}, terms) {
  const colored = cells => cells.map((one, i) => ({...one, color: COLORS.cells[i % COLORS.cells.length]}));
  if (layer.kind === "cells")
    return colored(layer.table[position].map(({cell, members}) => ({cell, label: cell, members})));
  if (layer.kind === "cellsWeight")
    return colored(terms.length ? [{label: terms[0].cell, members: [...new Set(terms.flatMap(({members}) => members))]}] : []);
  if (layer.kind !== "cellsInput") return [];
  // Who has the point in cell m stands on the other side of it: in the cube that mirrors cell m.
  const last = layer.layer.kernel ** 3 - 1, byCell = new Map();
  for (const {cell, point} of layer.readers[position]) byCell.set(cell, [...(byCell.get(cell) ?? []), point]);
  return colored([...byCell].sort(([one], [other]) => one - other)
    .map(([cell, members]) => ({cell: last - cell, label: cell, members})));
}

/** Draws one step into what buildCloud made. */
function drawCloud(scene, plan, place, terms, width, height) {
  scene.current = place;
  const {kind} = place.layer, query = kind.endsWith("Weight") ? null : place.position;
  const occupied = cellsOfStep(place, terms);
  const beside = width >= 620;
  const side = beside ? Math.floor(width * 0.54) : width;
  const settings = kind.startsWith("mix") ? {...plan.settings, kernel: 1} : plan.settings;
  const strips = scene.strips.reduce((sum, {values}) => sum + STRIP_ROW * values.length + 48, 0);
  const tall = beside ? Math.max(205, Math.min(520, height - strips)) : 300;
  scene.side.style.setProperty("--tall", `${tall - 92}px`);
  scene.view.redraw = () => drawView(scene.view, query, occupied, settings, side, tall);
  scene.view.redraw();
  writeCells(scene, place, terms, occupied);
  for (const strip of scene.strips) drawStrip(strip, place, terms, occupied, width);
}

/** What meets in a step: of cells a row for each, else a row for each product. */
function writeCells(scene, place, terms, occupied) {
  const {layer} = place;
  const {caption, head, rows, note} = {
    cells: () => forwardCells(layer, place, terms, occupied),
    cellsInput: () => backwardCells(terms, occupied),
  }[layer.kind]?.() ?? productList(layer, terms);
  scene.table.replaceChildren(element("caption", {}, caption), headOf(head),
    element("tbody", {}, ...rows.map(([first, ...rest]) => element("tr", {}, element("th", {scope: "row"}, ...[first].flat()),
      ...rest.map(text => element("td", {}, text))))));
  scene.note.textContent = note;
}

const headOf = names => element("thead", {}, element("tr", {}, ...names.map(name => element("th", {scope: "col"}, name))));

/** A cell's number behind a dot in the colour of its cube. */
function cellLabel({label, color}) {
  const swatch = element("span", {class: "swatch"});
  swatch.style.background = color;
  return [swatch, String(label)];
}

/** A row for each occupied cell: whose mean meets which weight in every channel. */
function forwardCells(layer, place, terms, occupied) {
  const channels = layer.depthwise ? [place.channel] : layer.x[0].map((_, c) => c);
  const empty = layer.kernel ** 3 - occupied.length;
  return {
    caption: "Mean of the cell × its weight",
    head: ["cell", "points", ...channels.map(c => `channel ${c}`), "sum"],
    rows: occupied.map(one => {
      const own = terms.filter(term => term.cell === one.label);
      return [cellLabel(one), String(one.members.length), ...own.map(term => `${num(term.value)} × ${bracketed(term.weight)}`), num(sumOf(own))];
    }),
    note: `${counted(empty, "empty cell")} add${empty === 1 ? "s" : ""} nothing. ` +
      `Cell ${(layer.kernel ** 3 - 1) / 2} is the middle one, around the point itself.`,
  };
}

/** A row for each cell in which others have the point. */
function backwardCells(terms, occupied) {
  return {
    caption: "Who had the point in which cell, and what it sends back",
    head: ["cell", "of points", "sum"],
    rows: occupied.map(one => [cellLabel(one), one.members.join(", "), num(sumOf(terms.filter(term => term.cell === one.label)))]),
    note: "Who has the point in the cell to its left stands to the right: the kernel is mirrored. " +
      "A mean of n points sends each of them a part in n.",
  };
}

function productList(layer, terms) {
  const ofPoints = layer.kind.endsWith("Weight");
  const [value, weight] = layer.kind === "mixInput" ? ["gradient", "weight"]
    : ofPoints ? [layer.kind === "cellsWeight" ? "mean" : layer.names.input, "gradient"] : ["z", "weight"];
  return {
    caption: ofPoints ? "Where the weight was used" : "The channels of the point",
    head: [ofPoints ? "point" : "channel", value, `× ${weight}`, "= product"],
    rows: terms.map(term => [String(ofPoints ? term.point : term.channel), num(term.value), num(term.weight), num(term.product)]),
    note: {
      mix: "The second half looks at one point only: its channels are mixed.",
      mixInput: "The second half joins one point’s channels only, so its gradient stays with the point.",
      cellsWeight: terms.length ? "Every point with someone in this cell has used the weight once." : "No point has anyone in this cell: its weight was never used.",
      mixWeight: "Every point has used the weight once.",
    }[layer.kind],
  };
}

/** What a step reads of a strip, as frames. */
function stripMarks({layer}, place, terms, occupied) {
  const read = [...new Set(terms.map(term => term.channel))];
  if (layer !== place.layer) return [];
  if (layer.kind === "mix") return read.map(c => ({i: c, j: place.position}));
  if (layer.kind.startsWith("mix")) return terms.map(({channel, point}) => ({i: channel, j: point}));
  return occupied.flatMap(({members, color}) => members.flatMap(j => read.map(c => ({i: c, j, color}))));
}

function drawStrip(strip, place, terms, occupied, width) {
  const {source, values, block} = strip;
  const columns = values[0].length, channels = values.length;
  const gaps = block ? (columns / block - 1) * BLOCK_GAP : 0;
  strip.cell = Math.max(3, Math.min(32, Math.floor((width - 4 - gaps) / columns)));
  strip.tall = STRIP_ROW;
  strip.done = channel => (source ? doneUpTo(source, channel, place) : Infinity);
  const marks = strip.layer ? stripMarks(strip, place, terms, occupied) : [];
  const current = source === place.layer;
  const box = current ? {i: place.channel, j: place.position, rows: 1, columns: 1, label: num(valueAt(place))} : null;
  drawGrid(strip.canvas, {
    rows: channels, columns, cell: strip.cell, tall: strip.tall, font: fittingFont(values, strip.cell), block,
    most: i => strip.most[i], marks, box, value: (c, p) => (p <= strip.done(c) ? values[c][p] : null),
  });
  const what = current ? `${placeInWords(place)} is computed` : marks.length ? `${counted(marks.length, "value")} read` : "";
  strip.canvas.setAttribute("aria-label", `${counted(channels, "channel")} of ${counted(columns, source && source.kind.endsWith("Weight") ? "weight" : "point")}${what && ": " + what}`);
}
