// The picture of an image's convolution, or of its gradients: a band of channels for what a stage reads, one for
// what it makes; where the next stage reads that, one band is both. Beside each channel that is read stands what it
// is multiplied by.

/** Makes the bands for a plan inside the stage; pick(step) is called for a click on an output. */
function buildPicture(stage, plan, pick) {
  const bands = bandsOf(plan);
  bands.forEach((band, n) => {
    band.title = element("h2", {id: `band-${n}`, class: "band-title"});
    band.row = element("div", {class: "cards"});
    band.planes = planesOf(band);
    band.most = band.planes.map(largest);
    if (band.layer) band.mostBeside = largest(band.layer.kind === "imageWeight" ? band.layer.gradient : weightsOf(band.layer));
    band.cards = band.planes.map((_, c) => makeCard(band, c, pick));
    band.row.append(...band.cards.map(card => card.figure));
    band.element = element("div", {class: "band", role: "group", "aria-labelledby": `band-${n}`}, band.title, band.row);
    if (band.source) makeWalkable(band.element);
  });
  stage.replaceChildren(element("div", {class: "bands"}, ...bands.map(band => band.element)));
  return {bands};
}

/** {source: the stage that makes it, layer: the stage that reads it}; the inputs have no source, the results no reader. */
function bandsOf({stages}) {
  const bands = [];
  stages.forEach((stage, n) => {
    const before = bands[bands.length - 1];
    if (n > 0 && before.source.names.output === stage.names.input) before.layer = stage;
    else bands.push({layer: stage});
    bands.push({source: stage});
  });
  return bands;
}

/** The channels of a band as [channel][row][column]. */
function planesOf({layer, source}) {
  if (source) return asImage(source.values, source.rows, source.columns);
  if (layer.kind === "imageInput") return asImage(layer.gradient, layer.layer.rows, layer.layer.columns);
  return layer.kind === "imageWeight" ? layer.layer.x : layer.x;
}

/** The weights of the convolution that a stage belongs to. */
const weightsOf = stage => (stage.layer ?? stage).weight;

/** An element that arrow keys walk over, once it has the focus (main.js listens). */
function makeWalkable(target) {
  target.tabIndex = 0;
  target.dataset.walk = "outputs";
  target.setAttribute("aria-describedby", "walk-keys");
}

function makeCard(band, channel, pick) {
  const {layer, source} = band;
  const plane = element("canvas", {role: "img", class: "plane"});
  const notes = [`±${num(band.most[channel])}`];
  if (!source && layer.names.input === "x") notes.unshift(DATA.image.names[channel]);
  const caption = element("figcaption", {}, element("span", {class: "word"}, "channel "), String(channel), ...notes.map(note => element("small", {}, note)));
  const drawn = element("div", {class: "drawn"}, plane);
  const figure = element("figure", {class: "card"}, caption, drawn);
  const card = {figure, plane, channel};
  if (layer) {
    card.kernel = element("canvas", {role: "img", class: "kernel"});
    card.partial = element("span", {class: "partial"});
    drawn.append(element("div", {class: "meets"}, card.kernel, card.partial));
  }
  plane.addEventListener("pointermove", event => {
    plane.title = valueInWords(band, channel, cellAt(plane, event));
  });
  if (source) {
    plane.classList.add("pick");
    plane.addEventListener("click", event => {
      const {i, j} = cellAt(plane, event);
      if (i < 0 || j < 0 || i >= source.rows || j >= source.columns) return;
      pick(stepOf(source, channel, i * source.columns + j));
    });
  }
  return card;
}

/** The value under the pointer, as it would be written in Python; "" outside and where nothing is computed yet. */
function valueInWords({layer, source, planes, size, done}, channel, {i, j}) {
  const [row, column] = [i - size.top, j - size.left];
  const value = planes[channel][row]?.[column];
  if (value === undefined) return "";
  if (!source) return `${layer.names.input}[${channel}, ${row}, ${column}] = ${num(value)}`;
  const p = row * source.columns + column;
  return p <= done(channel) ? `${indexAt(source, channel, p)} = ${num(value)}` : "";
}

/** Draws one step into what buildPicture made. */
function drawPicture(scene, plan, place, terms, width, height) {
  if (scene.fitted !== `${width} ${height}`) {
    fitPicture(scene, fitBands(scene.bands, width, height));
    scene.fitted = `${width} ${height}`;
  }
  for (const band of scene.bands) {
    writeBandTitle(band, plan, place);
    band.done = channel => (band.source ? doneUpTo(band.source, channel, place) : Infinity);
    for (const card of band.cards) {
      const reading = band.layer === place.layer ? terms.filter(term => term.channel === card.channel) : [];
      drawPlane(band, card, place, reading);
      if (band.layer) drawBeside(band, card, place, reading);
    }
  }
}

function fitPicture(scene, {cards, widths}) {
  scene.bands.forEach((band, n) => {
    const {tap, cell, arrangement} = cards[n];
    Object.assign(band, {cell, tap, size: bandSize(band), font: fittingFont(band.planes, cell)});
    if (band.layer) band.tapFont = fittingFont(band.layer.kind === "imageWeight" ? band.layer.gradient : weightsOf(band.layer), tap, true);
    band.element.style.width = `${widths[n]}px`;
    band.row.className = `cards ${arrangement}`;
    for (const card of band.cards) {
      card.figure.style.width = `${cards[n].width}px`;
      card.figure.classList.toggle("tight", cards[n].width < 150);
    }
  });
}

const BAND_TITLES = {x: "Input", z: "Middle", y: "Output"};

function writeBandTitle({title, layer, source, planes}, plan, place) {
  const name = source ? source.names.output : layer.names.input;
  const shape = source ? shapeOf(plan, source) : [planes.length, planes[0].length, planes[0][0].length];
  const parts = [BAND_TITLES[name] ?? "Gradient", element("code", {}, `${name} [${shape.join(", ")}]`)];
  if (layer && layer === place.layer)
    parts.push(element("span", {class: "below"}, "× ", element("code", {}, besideName(place))));
  title.replaceChildren(...parts);
}

function drawPlane(band, card, place, reading) {
  const {layer, source, cell, size, planes} = band;
  const channel = planes[card.channel];
  const done = band.done(card.channel);
  const value = (i, j) => {
    const number = channel[i - size.top]?.[j - size.left];
    if (number === undefined || !source) return number;
    return (i - size.top) * source.columns + j - size.left <= done ? number : null;
  };
  const current = source && source === place.layer && card.channel === place.channel;
  const marks = [];
  let box = null;
  if (current) box = {i: place.row + size.top, j: place.column + size.left, rows: 1, columns: 1, label: num(valueAt(place))};
  else if (reading.length && isBlock(layer)) box = blockOf(reading, size);
  else for (const {row, column} of reading) marks.push({i: row + size.top, j: column + size.left});
  const off = Boolean(layer) && layer === place.layer && reading.length === 0;
  drawGrid(card.plane, {
    ...size, cell, font: band.font, value, most: band.most[card.channel], marks, box, faint: off,
  });
  card.figure.classList.toggle("off", off);
  card.plane.setAttribute("aria-label", planeInWords(band, card, place, reading, current, done));
}

/** Whether what a step reads lies without gaps. */
function isBlock(stage) {
  if (stage.kind === "image") return stage.dilation === 1;
  return stage.layer.stride === 1 && (stage.kind === "imageWeight" || stage.layer.dilation === 1);
}

function blockOf(reading, {top, left}) {
  const rows = reading.map(term => term.row), columns = reading.map(term => term.column);
  const [i, j] = [Math.min(...rows), Math.min(...columns)];
  return {i: i + top, j: j + left, rows: Math.max(...rows) - i + 1, columns: Math.max(...columns) - j + 1};
}

/** The last position of an output channel that has its value at a step; -1 for none. */
function doneUpTo(source, channel, place) {
  if (source.first + channel * source.positions > place.step) return -1;
  return Math.min(source.positions - 1, place.step - stepOf(source, channel, 0));
}

function planeInWords({source, planes}, card, place, reading, current, done) {
  const plane = planes[card.channel];
  const size = `Channel ${card.channel}, ${plane.length} × ${plane[0].length}`;
  if (current) return `${size}: row ${place.row}, column ${place.column} is computed`;
  if (source && done < 0) return `${size}: nothing computed yet`;
  if (!reading.length) return size;
  const [first, last] = [reading[0], reading[reading.length - 1]];
  return `${size}: rows ${first.row} to ${last.row}, columns ${first.column} to ${last.column} are read`;
}

/**
 * What channel c of a stage's input is multiplied by at a step, as a grid: {values, name, met}. met says which of them
 * take part; in a group that the step does not belong to, it is those of the output with the same place there.
 */
function besideOf(stage, c, {channel, position}) {
  const layer = stage.layer ?? stage;
  const {perGroup, outputsPerGroup} = layer;
  if (stage.kind === "imageInput") {
    const first = Math.floor(c / outputsPerGroup) * perGroup, input = first + channel % perGroup;
    const values = layer.weight[c][input - first].map(row => [...row].reverse()).reverse();
    const used = new Set(imageInputTerms(stage, input, position).filter(term => term.channel === c)
      .map(({a, b}) => `${layer.kernel - 1 - a} ${layer.kernel - 1 - b}`));
    return {values, name: `Weights of channel ${input} for output ${c}, turned by half a turn`, met: (a, b) => used.has(`${a} ${b}`)};
  }
  const group = Math.floor(c / perGroup), output = group * outputsPerGroup + channel % outputsPerGroup;
  if (stage.kind === "imageWeight")
    return {values: asImage([stage.gradient[output]], layer.rows, layer.columns)[0], name: `Gradient of output ${output}`, met: () => true};
  return {values: layer.weight[output][c % perGroup], name: `Weights of channel ${c} for output ${output}`, met: () => true};
}

function drawBeside({layer, tap, tapFont, mostBeside}, card, place, reading) {
  const working = layer === place.layer;
  const {values, name, met} = besideOf(layer, card.channel, working ? place : {channel: 0, position: 0});
  drawGrid(card.kernel, {
    rows: values.length, columns: values[0].length, cell: tap, font: tapFont, value: (a, b) => values[a][b],
    most: mostBeside, faint: working && reading.length ? (a, b) => !met(a, b) : true,
  });
  card.kernel.setAttribute("aria-label", `${name}: ${values.map(row => row.map(num).join(", ")).join("; ")}`);
  card.partial.textContent = reading.length ? `= ${num(sumOf(reading))}` : "";
}
