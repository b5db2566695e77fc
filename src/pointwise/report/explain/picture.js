// The picture of an image's convolution: a band of channels for the input, one for what lies between two
// halves, one for the output; with each channel that is read, its weights for the output of the step.

/** Makes the bands for a plan inside the stage; pick(step) is called for a click on an output. */
function buildPicture(stage, plan, pick) {
  const bands = [];
  for (let n = 0; n <= plan.layers.length; n++) {
    const layer = plan.layers[n], source = plan.layers[n - 1];
    const band = {layer, source, cards: []};
    band.title = element("h2", {id: `band-${n}`, class: "band-title"});
    band.row = element("div", {class: "cards"});
    const channels = source ? source.channelsOut : layer.channelsIn;
    for (let c = 0; c < channels; c++) band.cards.push(makeCard(band, c, n === 0 && DATA.image.names[c], pick));
    band.row.append(...band.cards.map(card => card.figure));
    band.element = element("div", {class: "band", role: "group", "aria-labelledby": `band-${n}`}, band.title, band.row);
    if (source) makeWalkable(band.element);
    bands.push(band);
  }
  stage.replaceChildren(element("div", {class: "bands"}, ...bands.map(band => band.element)));
  const most = bands.map(({layer, source}) => largest(source ? source.values : layer.x));
  return {bands, most, mostWeight: plan.layers.map(layer => largest(layer.weight))};
}

/** An element that arrow keys walk over, once it has the focus (main.js listens). */
function makeWalkable(target) {
  target.tabIndex = 0;
  target.dataset.walk = "outputs";
  target.setAttribute("aria-describedby", "walk-keys");
}

function makeCard(band, channel, name, pick) {
  const {layer, source} = band;
  const plane = element("canvas", {role: "img", class: "plane"});
  const caption = element("figcaption", {}, `channel ${channel}`, ...(name ? [element("small", {}, name)] : []));
  const drawn = element("div", {class: "drawn"}, plane);
  const figure = element("figure", {class: "card"}, caption, drawn);
  const card = {figure, plane, channel};
  if (layer) {
    card.kernel = element("canvas", {role: "img", class: "kernel"});
    card.partial = element("span", {class: "partial"});
    drawn.append(element("div", {class: "meets"}, card.kernel, card.partial));
  }
  if (source) {
    plane.classList.add("pick");
    plane.addEventListener("click", event => {
      const {cell} = band;
      const [i, j] = [Math.floor((event.offsetY - 2) / cell), Math.floor((event.offsetX - 2) / cell)];
      if (i < 0 || j < 0 || i >= source.rows || j >= source.columns) return;
      pick(stepOf(source, channel, i * source.columns + j));
    });
  }
  return card;
}

/** Draws one step into what buildPicture made. */
function drawPicture(scene, plan, place, terms, width, height) {
  if (scene.fitted !== `${width} ${height}`) {
    fitPicture(scene, fitBands(scene.bands, width, height));
    scene.fitted = `${width} ${height}`;
  }
  scene.bands.forEach((band, n) => {
    writeBandTitle(band, n, plan, place);
    for (const card of band.cards) {
      const reading = band.layer === place.layer ? terms.filter(term => term.channel === card.channel) : [];
      drawPlane(scene, band, n, card, place, reading);
      if (band.layer) drawKernel(scene, band, n, card, place, reading);
    }
  });
}

function fitPicture(scene, {cell, beside, cards, widths}) {
  scene.bands.forEach((band, n) => {
    const {tap} = cards[n], {layer, source} = band;
    Object.assign(band, {cell, tap});
    band.font = fittingFont(source ? source.values : layer.x, cell);
    if (layer) band.tapFont = fittingFont(layer.weight, tap);
    band.element.style.width = `${widths[n]}px`;
    band.row.classList.toggle("beside", beside);
    for (const card of band.cards) {
      card.figure.style.width = `${cards[n].width}px`;
      card.figure.classList.toggle("tight", cards[n].width < 150);
    }
  });
}

function writeBandTitle(band, n, plan, place) {
  const {layer, source} = band;
  const name = source ? outputName(plan, n - 1) : "x";
  const sizes = source ? [source.channelsOut, source.rows, source.columns] : [layer.channelsIn, layer.x[0].length, layer.x[0][0].length];
  const title = !source ? "Input" : layer ? "Middle" : "Output";
  const shape = `${name} [${sizes.join(", ")}]`;
  const parts = [title, element("code", {}, shape)];
  if (layer === place.layer)
    parts.push(element("span", {class: "below"}, "× weights ", element("code", {}, `${weightName(n)}[${place.channel}]`)));
  band.title.replaceChildren(...parts);
}

function drawPlane(scene, band, n, card, place, reading) {
  const {layer, source, cell} = band;
  const size = bandSize(band);
  const channel = source ? source.values[card.channel] : layer.x[card.channel];
  const [rows, columns] = source ? [source.rows, source.columns] : [channel.length, channel[0].length];
  const done = source ? doneUpTo(source, card.channel, place) : Infinity;
  const value = (i, j) => {
    const [row, column] = [i - size.top, j - size.left];
    if (row < 0 || column < 0 || row >= rows || column >= columns) return undefined;
    if (!source) return channel[row][column];
    const p = row * columns + column;
    return p <= done ? channel[p] : null;
  };
  const marks = [];
  let box = null;
  if (reading.length && layer.dilation === 1) {
    const {row, column} = reading[0];
    box = {i: row + size.top, j: column + size.left, rows: layer.kernel, columns: layer.kernel};
  } else for (const {row, column} of reading) marks.push({i: row + size.top, j: column + size.left});
  const current = source === place.layer && card.channel === place.channel;
  if (current) box = {i: place.row + size.top, j: place.column + size.left, rows: 1, columns: 1};
  const off = layer === place.layer && reading.length === 0;
  drawGrid(card.plane, {rows: size.rows, columns: size.columns, cell, font: band.font, value, most: scene.most[n], marks, box, faint: off});
  card.figure.classList.toggle("off", off);
  card.plane.setAttribute("aria-label", planeInWords(band, card, rows, columns, place, reading, current, done));
}

/** The last position of an output channel that has its value at a step; -1 for none. */
function doneUpTo(source, channel, place) {
  if (source.first + channel * source.positions > place.step) return -1;
  return Math.min(source.positions - 1, place.step - stepOf(source, channel, 0));
}

function planeInWords({source}, card, rows, columns, place, reading, current, done) {
  const size = `Channel ${card.channel}, ${rows} × ${columns}`;
  if (current) return `${size}: row ${place.row}, column ${place.column} is computed`;
  if (source && done < 0) return `${size}: nothing computed yet`;
  if (!reading.length) return size;
  const [first, last] = [reading[0], reading[reading.length - 1]];
  return `${size}: rows ${first.row} to ${last.row}, columns ${first.column} to ${last.column} are read`;
}

function drawKernel(scene, band, n, card, place, reading) {
  const {layer, tap} = band;
  const working = layer === place.layer;
  // In another group than the step's: the weights of the output that has the same place there.
  const group = Math.floor(card.channel / layer.perGroup);
  const output = group * layer.outputsPerGroup + (working ? place.channel % layer.outputsPerGroup : 0);
  const weights = layer.weight[output][card.channel % layer.perGroup];
  drawGrid(card.kernel, {
    rows: layer.kernel, columns: layer.kernel, cell: tap, font: band.tapFont, value: (a, b) => weights[a][b],
    most: scene.mostWeight[n], faint: !reading.length,
  });
  const listed = weights.map(row => row.map(num).join(", ")).join("; ");
  card.kernel.setAttribute("aria-label", `Weights of channel ${card.channel} for output ${output}: ${listed}`);
  card.partial.textContent = reading.length ? `= ${num(sumOf(reading))}` : "";
}
