// What was chosen as layers (one, or the two halves of a separable convolution) and as steps: one step
// for each output value, channel after channel, pixel after pixel.

/**
 * Everything the page shows of a convolution; settings must have no problem. pass is "forward", or what the
 * gradients are wanted of: "input" or "weight". layers are the convolution's, stages those that the steps walk through.
 */
function planOf(kind, settings, pass = "forward") {
  const layers = isCloud(kind) ? cloudLayers(kind, settings) : imageLayers(kind, settings);
  const forward = pass === "forward";
  for (const layer of layers) {
    layer.values ??= outputsOf(layer);
    layer.products = productsOf(layer);
  }
  const stages = forward ? layers : backwardStages(pass, layers);
  let first = 0;
  for (const stage of stages) {
    stage.values ??= outputsOf(stage);
    stage.products ??= backwardProducts(stage);
    stage.first = first;
    first += stage.channelsOut * stage.positions;
  }
  const plan = {kind, pass, settings, layers, stages, steps: first, last: layers[layers.length - 1]};
  plan.example = forward ? exampleOf(kind, settings) : undefined;
  plan.job = jobOf(plan);
  plan.cost = costOf(KINDS[kind].cost, plan.job);
  plan.products = total(stages.map(stage => stage.channelsOut * total(stage.products)));
  if (forward) plan.bytesAfter = bytesAfter(layers);
  return plan;
}

/** The first step to look at: of a cloud, that of the point which sees most; of an image, the first. */
function startOf({kind, stages}) {
  const [stage] = stages;
  if (!isCloud(kind) || !stage.products.length) return 0;
  return stage.products.indexOf(Math.max(...stage.products));
}

/** What a layer reads, multiplies by and makes, as PyTorch would name it: z lies between two halves. */
function nameLayers(layers) {
  layers.forEach((layer, n) => {
    layer.names = {input: n === 0 ? "x" : "z", weight: n === 0 ? "w" : "v", output: n === layers.length - 1 ? "y" : "z"};
  });
  return layers;
}

function imageLayers(kind, settings) {
  const {weights, picture} = DATA.image;
  const {channelsIn, channelsOut, kernel, stride, padding, dilation} = settings;
  const x = picture.slice(0, channelsIn).map(channel =>
    channel.slice(0, settings.height).map(row => row.slice(0, settings.width)));
  const how = {stride, padding, dilation};
  const cut = (weight, outputs, inputs) => weight.slice(0, outputs).map(output => output.slice(0, inputs));
  const wide = channelsIn * settings.multiplier;
  if (kind === "standard") return nameLayers([imageLayer(x, cut(weights.standard[kernel], channelsOut, channelsIn), how)]);
  if (kind === "pointwise") return nameLayers([imageLayer(x, cut(weights.standard[1], channelsOut, channelsIn), {stride})]);
  if (kind === "grouped") {
    const {groups} = settings;
    return nameLayers([imageLayer(x, cut(weights.standard[kernel], channelsOut, channelsIn / groups), {...how, groups})]);
  }
  const depthwise = imageLayer(x, weights.depthwise[kernel].slice(0, wide), {...how, groups: channelsIn});
  if (kind === "depthwise") return nameLayers([depthwise]);
  depthwise.values = outputsOf(depthwise);
  const between = asImage(depthwise.values, depthwise.rows, depthwise.columns);
  const mix = cut(weights.mix, channelsOut, wide).map(output => output.map(value => [[value]]));
  return nameLayers([depthwise, imageLayer(between, mix)]);
}

function cloudLayers(kind, settings) {
  const {weights} = DATA.cloud;
  const {channelsIn, channelsOut, kernel} = settings;
  const rows = chosenPoints(settings.points);
  const points = rows.map(i => DATA.cloud.points[i]);
  const x = rows.map(i => DATA.cloud.features[i].slice(0, channelsIn));
  const table = cellTable(points, settings.cellSize, kernel, settings.dilation);
  const layers = [];
  if (kind === "cells") {
    const weight = weights.standard[kernel].slice(0, channelsOut).map(output => output.slice(0, channelsIn));
    layers.push(cellLayer(x, table, weight));
  } else {
    layers.push(cellLayer(x, table, weights.depthwise[kernel].slice(0, channelsIn), true));
    layers[0].values = outputsOf(layers[0]);
    layers.push(mixLayer(asFeatures(layers[0].values), weights.mix.slice(0, channelsOut).map(row => row.slice(0, channelsIn))));
  }
  layers[0].points = points;
  return nameLayers(layers);
}

/** Which points stand for all of them where fewer are wanted: evenly spread, as in material.py. */
function chosenPoints(count) {
  const all = DATA.cloud.points.length;
  return Array.from({length: count}, (_, i) => Math.floor(i * all / count));
}

/** How many products make one value of each position; the same for every output channel. */
function productsOf(layer) {
  const channels = layer.kind === "image" ? layer.perGroup : layer.depthwise ? 1 : layer.channelsIn;
  return Array.from({length: layer.positions}, (_, p) =>
    channels * (layer.kind === "image" ? layer.kernel ** 2 : layer.kind === "cells" ? layer.table[p].length : 1));
}

const total = numbers => numbers.reduce((sum, number) => sum + number, 0);

/** What has to be done, whoever does it: the sizes from which all costs follow. */
function jobOf({kind, settings, layers, last}) {
  const {channelsIn} = layers[0], {channelsOut} = last;
  const cloud = isCloud(kind);
  const taps = settings.kernel ** (cloud ? 3 : 2), outputs = last.positions;
  return {
    kinds: cloud ? ["standard", "separable", "depthwise", "pointwise"]
      : ["standard", "grouped", "separable", "depthwise", "pointwise"],
    channelsIn, channelsOut, taps, outputs,
    meetings: cloud ? occupiedCells(layers[0]) : taps * outputs,
    multiplier: cloud ? 1 : settings.multiplier,
    groups: kind === "grouped" ? settings.groups : groupsFor(settings.groups ?? 1, channelsIn, channelsOut),
  };
}

/** Over all points, the kernel cells with a neighbour in them. */
const occupiedCells = layer => total(layer.table.map(cells => cells.length));

/** Where a step is: its layer (or stage of the way back), output channel and position. */
function placeOf(plan, step) {
  const number = plan.stages.findLastIndex(stage => step >= stage.first);
  const layer = plan.stages[number];
  const within = step - layer.first;
  const channel = Math.floor(within / layer.positions), position = within % layer.positions;
  return {
    step, number, layer, channel, position,
    row: Math.floor(position / layer.columns), column: position % layer.columns,
  };
}

/** The step that computes one output. */
const stepOf = (layer, channel, position) => layer.first + channel * layer.positions + position;

/** Multiplications done when a step is done. */
function multiplicationsAfter(plan, step) {
  const {layer, number, channel, position} = placeOf(plan, step);
  const before = total(plan.stages.slice(0, number).map(one => one.channelsOut * total(one.products)));
  return before + channel * total(layer.products) + total(layer.products.slice(0, position + 1));
}

/**
 * For each step, the bytes that have been moved when it is done: every input, weight and output once, and
 * for a cloud the table of neighbours. What lies between two halves stays in the cache.
 */
function bytesAfter(layers) {
  const after = [];
  let moved = 0;
  layers.forEach((layer, number) => {
    const inputs = new Set(), output = layer === layers[layers.length - 1];
    const weights = [layer.weight[0]].flat(Infinity).length;
    for (let o = 0; o < layer.channelsOut; o++) {
      moved += FLOAT_BYTES * weights;  // this output's weights, needed from now on
      for (let p = 0; p < layer.positions; p++) {
        if (number === 0 && readsOthers(layer, o)) {
          const before = inputs.size;
          for (const key of inputsRead(layer, o, p)) inputs.add(key);
          moved += FLOAT_BYTES * (inputs.size - before);
          if (o === 0) moved += tableBytes(layer, p);
        }
        if (output) moved += FLOAT_BYTES;
        after.push(moved);
      }
    }
  });
  return after;
}

/** Whether an output channel reads other channels than the one before it. */
function readsOthers(layer, o) {
  if (layer.kind === "image") return o % layer.outputsPerGroup === 0;
  return layer.depthwise || o === 0;
}

/** A point's row in the table of neighbours: where it begins, and four bytes for each of them. */
function tableBytes(layer, p) {
  if (layer.kind !== "cells") return 0;
  return 8 + (p === 0 ? 8 : 0) + 4 * total(layer.table[p].map(({members}) => members.length));
}

/** The inputs that one output is made from, each as a number of its own. */
function inputsRead(layer, o, p) {
  const keys = [];
  for (const term of termsOf(layer, o, p)) {
    if (layer.kind === "image") {
      if (term.inside) keys.push((term.channel * 1000 + term.row) * 1000 + term.column);
    } else for (const j of term.members) keys.push(term.channel * 1000 + j);
  }
  return keys;
}
