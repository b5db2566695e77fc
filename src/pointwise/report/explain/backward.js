// The way back: what the gradient of the outputs becomes at the inputs and at the weights of a layer. A stage of
// it looks like a layer to the rest of the page: it has outputs, each a sum of products of a value and a weight.
// tests/report/test_explain_gradients.py holds the numbers against PyTorch's autograd.

/** The gradient that arrives at an output, as if a loss had sent it: whole numbers from -2 to 2. */
const arriving = (o, p) => (7 * o + 3 * p + Math.floor(p / 3)) % 5 - 2;

/** Gradients [channel][position] at all outputs of a layer. */
const arrivingAt = layer => Array.from({length: layer.channelsOut}, (_, o) =>
  Array.from({length: layer.positions}, (_, p) => arriving(o, p)));

/** The stages of one pass back through some layers, from the last one to the first. */
function backwardStages(pass, layers) {
  const stages = [];
  let gradient = arrivingAt(layers[layers.length - 1]);
  for (const layer of [...layers].reverse()) {
    if (pass === "weight") stages.push(weightGradient(layer, gradient));
    const back = inputGradient(layer, gradient);
    if (pass === "input") stages.push(back);
    if (layer !== layers[0]) gradient = outputsOf(back);
  }
  return stages;
}

/** What a layer's inputs get; one output for each of them. */
function inputGradient(layer, gradient) {
  const {x} = layer;
  const shape = layer.kind === "image" ? {rows: x[0].length, columns: x[0][0].length} : {rows: 1, columns: x.length};
  return {
    kind: `${layer.kind}Input`, layer, gradient, ...shape, positions: shape.rows * shape.columns,
    channelsIn: layer.channelsOut, channelsOut: layer.channelsIn,
    readers: layer.kind === "cells" ? readersOf(layer.table) : null,
    names: {input: `${layer.names.output}.grad`, weight: layer.names.weight, output: `${layer.names.input}.grad`},
  };
}

/** What a layer's weights get; for each output channel of the layer the weights of its kernels. */
function weightGradient(layer, gradient) {
  const {kernel} = layer;
  const own = layer.kind === "image" ? layer.perGroup : layer.depthwise ? 1 : layer.channelsIn;
  const shape = {
    image: {rows: kernel, columns: own * kernel}, cells: {rows: 1, columns: own * kernel ** 3}, mix: {rows: 1, columns: own},
  }[layer.kind];
  return {
    kind: `${layer.kind}Weight`, layer, gradient, ...shape, positions: shape.rows * shape.columns,
    channelsIn: layer.channelsIn, channelsOut: layer.channelsOut,
    names: {input: layer.names.input, weight: `${layer.names.output}.grad`, output: `${layer.names.weight}.grad`},
  };
}

/** For each point who has it in which cell, among how many: [point] → list of {point, cell, count}. */
function readersOf(table) {
  const readers = table.map(() => []);
  table.forEach((cells, point) => cells.forEach(({cell, members}) =>
    members.forEach(j => readers[j].push({point, cell, count: members.length}))));
  return readers;
}

/** The outputs of a layer that read its input channel c. */
function outputsReading(layer, c) {
  if (layer.kind === "image") {
    const first = Math.floor(c / layer.perGroup) * layer.outputsPerGroup;
    return Array.from({length: layer.outputsPerGroup}, (_, i) => first + i);
  }
  return layer.depthwise ? [c] : Array.from({length: layer.channelsOut}, (_, o) => o);
}

/** Every output that pixel p of channel c was part of: its gradient, times the weight that it was multiplied by. */
function imageInputTerms({layer, gradient, columns}, c, p) {
  const {weight, kernel, stride, dilation, perGroup} = layer;
  const terms = [];
  for (const o of outputsReading(layer, c))
    for (let a = 0; a < kernel; a++)
      for (let b = 0; b < kernel; b++) {
        const row = (Math.floor(p / columns) + layer.vertical[0] - a * dilation) / stride;
        const column = (p % columns + layer.horizontal[0] - b * dilation) / stride;
        if (!Number.isInteger(row) || !Number.isInteger(column)) continue;  // no output stands there
        if (row < 0 || column < 0 || row >= layer.rows || column >= layer.columns) continue;
        const value = gradient[o][row * layer.columns + column], w = weight[o][c % perGroup][a][b];
        terms.push({channel: o, row, column, inside: true, a, b, value, weight: w, product: value * w});
      }
  return terms;
}

/** Every place at which a weight was used: the input there, times the gradient of the output that it went into. */
function imageWeightTerms({layer, gradient, columns}, o, p) {
  const {x, kernel, stride, dilation, perGroup} = layer;
  const a = Math.floor(p / columns), own = Math.floor(p % columns / kernel), b = p % kernel;
  const channel = Math.floor(o / layer.outputsPerGroup) * perGroup + own;
  return gradient[o].map((weight, q) => {
    const row = Math.floor(q / layer.columns) * stride - layer.vertical[0] + a * dilation;
    const column = q % layer.columns * stride - layer.horizontal[0] + b * dilation;
    const inside = row >= 0 && column >= 0 && row < x[0].length && column < x[0][0].length;
    const value = inside ? x[channel][row][column] : 0;
    return {channel, row, column, inside, value, weight, product: value * weight};
  });
}

/** Every point that has point j in a cell: it sends its gradient through the cell's weight, divided among all in the cell. */
function cellsInputTerms({layer, gradient, readers}, c, j) {
  return readers[j].flatMap(({point, cell, count}) => outputsReading(layer, c).map(o => {
    const value = gradient[o][point] / count, weight = layer.weight[o][layer.depthwise ? 0 : c][cell];
    return {channel: o, point, cell, count, inside: true, value, weight, product: value * weight};
  }));
}

/** Every point with someone in cell m: the mean of the cell, times the gradient of the point. */
function cellsWeightTerms({layer, gradient}, o, p) {
  const cell = p % layer.kernel ** 3, own = Math.floor(p / layer.kernel ** 3);
  const channel = layer.depthwise ? o : own;
  return layer.table.flatMap((cells, point) => cells.filter(one => one.cell === cell).map(({members}) => {
    const value = cellMean(layer.x, members, channel), weight = gradient[o][point];
    return {channel, cell, point, members, inside: true, value, weight, product: value * weight};
  }));
}

function mixInputTerms({layer, gradient}, c, j) {
  return layer.weight.map((row, o) =>
    ({channel: o, point: j, inside: true, value: gradient[o][j], weight: row[c], product: gradient[o][j] * row[c]}));
}

function mixWeightTerms({layer, gradient}, o, channel) {
  return layer.x.map((row, point) =>
    ({channel, point, inside: true, value: row[channel], weight: gradient[o][point], product: row[channel] * gradient[o][point]}));
}

/** How many products make one value of each position; the same for every channel. */
function backwardProducts(stage) {
  const {layer, kind} = stage;
  return Array.from({length: stage.positions}, (_, p) => ({
    imageInput: () => imageInputTerms(stage, 0, p).length,
    cellsInput: () => stage.readers[p].length * (layer.depthwise ? 1 : layer.channelsOut),
    cellsWeight: () => layer.table.filter(cells => cells.some(({cell}) => cell === p % layer.kernel ** 3)).length,
    mixInput: () => layer.channelsOut,
  }[kind] ?? (() => layer.positions))());
}
