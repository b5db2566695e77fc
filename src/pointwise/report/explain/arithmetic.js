// The convolutions themselves, as loops. Images are [channel][row][column], clouds [point][channel];
// weights have PyTorch's shapes. tests/report/test_explain_numbers.py holds them against the library.

/** "same" as (before, after): as many zeros as make the output ceil(size / stride) long. */
function sameEdges(size, extent, stride) {
  const reach = (Math.ceil(size / stride) - 1) * stride + extent;
  const total = Math.max(reach - size, 0);
  return [Math.floor(total / 2), Math.ceil(total / 2)];
}

/** Zeros (before, after) one side of an image; padding is "same" or a number. */
function edgesOf(padding, size, kernel, stride, dilation) {
  return padding === "same" ? sameEdges(size, (kernel - 1) * dilation + 1, stride) : [padding, padding];
}

/** How long the output is; below 1 where the kernel does not fit. */
function outputSize(size, edges, kernel, stride, dilation) {
  const extent = (kernel - 1) * dilation + 1;
  return Math.floor((size + edges[0] + edges[1] - extent) / stride) + 1;
}

/**
 * A convolution of an image, ready to be asked for its outputs one by one.
 * weight is [C_out][C_in / groups][k][k]; a depthwise convolution has a group for each channel.
 */
function imageLayer(x, weight, {stride = 1, padding = 0, dilation = 1, groups = 1} = {}) {
  const kernel = weight[0][0].length;
  const vertical = edgesOf(padding, x[0].length, kernel, stride, dilation);
  const horizontal = edgesOf(padding, x[0][0].length, kernel, stride, dilation);
  const rows = outputSize(x[0].length, vertical, kernel, stride, dilation);
  const columns = outputSize(x[0][0].length, horizontal, kernel, stride, dilation);
  const channelsOut = weight.length;
  return {
    kind: "image", x, weight, kernel, stride, dilation, groups, vertical, horizontal,
    rows, columns, positions: rows * columns, channelsOut,
    channelsIn: x.length, perGroup: x.length / groups, outputsPerGroup: channelsOut / groups,
  };
}

/** The products that make up output channel o at position p = row · columns + column. */
function imageTerms(layer, o, p) {
  const {x, weight, kernel, stride, dilation, perGroup} = layer;
  const first = Math.floor(o / layer.outputsPerGroup) * perGroup;
  const top = Math.floor(p / layer.columns) * stride - layer.vertical[0];
  const left = (p % layer.columns) * stride - layer.horizontal[0];
  const terms = [];
  for (let c = 0; c < perGroup; c++)
    for (let a = 0; a < kernel; a++)
      for (let b = 0; b < kernel; b++) {
        const row = top + a * dilation, column = left + b * dilation;
        const inside = row >= 0 && column >= 0 && row < x[0].length && column < x[0][0].length;
        const value = inside ? x[first + c][row][column] : 0;
        const w = weight[o][c][a][b];
        terms.push({channel: first + c, row, column, inside, a, b, value, weight: w, product: value * w});
      }
  return terms;
}

/**
 * For each point the neighbours in its kernel cells: [point] → list of {cell, members}, cells ascending.
 * Cell m = (z·k + y)·k + x is the half-open cube of edge size centred at dilation·size·(m - (k-1)/2).
 * The operations and their order are those of pointwise/cloud/search.py, so that borders fall alike.
 */
function cellTable(points, size, kernel, dilation) {
  const centre = (kernel - 1) / 2, pitch = dilation * size, inverse = 1 / pitch, half = size / 2;
  return points.map(query => {
    const found = new Map();
    points.forEach((point, j) => {
      let cell = 0;
      for (const axis of [2, 1, 0]) {
        const delta = point[axis] - query[axis];
        const step = Math.floor(delta * inverse + 0.5);
        if (Math.abs(step) > centre) return;
        const rest = delta - step * pitch;
        if (dilation > 1 && !(rest >= -half && rest < half)) return;
        cell = cell * kernel + step + centre;
      }
      if (!found.has(cell)) found.set(cell, []);
      found.get(cell).push(j);
    });
    return [...found].sort((one, other) => one[0] - other[0]).map(([cell, members]) => ({cell, members}));
  });
}

/** A convolution of a cloud; depthwise has one kernel for each channel, [C][1][k][k][k]. */
function cellLayer(x, table, weight, depthwise = false) {
  const kernel = weight[0][0].length;
  const flat = weight.map(output => output.map(cube => cube.flat(2)));
  return {
    kind: "cells", x, table, weight: flat, kernel, depthwise,
    rows: 1, columns: x.length, positions: x.length, channelsOut: weight.length, channelsIn: x[0].length,
  };
}

/** The mean of one channel over the members of a cell. */
function cellMean(x, members, channel) {
  let sum = 0;
  for (const j of members) sum += x[j][channel];
  return sum / members.length;
}

/** The products of output channel o at point p: one for each occupied cell and channel. */
function cellTerms(layer, o, p) {
  const channels = layer.depthwise ? [o] : layer.x[0].map((_, c) => c);
  return layer.table[p].flatMap(({cell, members}) => channels.map(channel => {
    const value = cellMean(layer.x, members, channel);
    const w = layer.weight[o][layer.depthwise ? 0 : channel][cell];
    return {channel, cell, members, inside: true, value, weight: w, product: value * w};
  }));
}

/** A pointwise mix of the channels of a cloud; weight is [C_out][C_in]. */
function mixLayer(x, weight) {
  return {
    kind: "mix", x, weight,
    rows: 1, columns: x.length, positions: x.length, channelsOut: weight.length, channelsIn: x[0].length,
  };
}

function mixTerms(layer, o, p) {
  return layer.x[p].map((value, channel) => {
    const w = layer.weight[o][channel];
    return {channel, inside: true, value, weight: w, product: value * w};
  });
}

/** The products that make up one output, of a layer or of a stage of the way back (backward.js). */
function termsOf(layer, o, p) {
  return {
    image: imageTerms, cells: cellTerms, mix: mixTerms,
    imageInput: imageInputTerms, cellsInput: cellsInputTerms, mixInput: mixInputTerms,
    imageWeight: imageWeightTerms, cellsWeight: cellsWeightTerms, mixWeight: mixWeightTerms,
  }[layer.kind](layer, o, p);
}

function sumOf(terms) {
  let sum = 0;
  for (const term of terms) sum += term.product;
  return sum;
}

/** All outputs of a layer, [channel][position]. */
function outputsOf(layer) {
  return Array.from({length: layer.channelsOut}, (_, o) =>
    Array.from({length: layer.positions}, (_, p) => sumOf(termsOf(layer, o, p))));
}

/** [channel][position] as an image [channel][row][column]. */
function asImage(values, rows, columns) {
  return values.map(channel =>
    Array.from({length: rows}, (_, i) => channel.slice(i * columns, (i + 1) * columns)));
}

/** [channel][position] as the features of a cloud, [point][channel]. */
function asFeatures(values) {
  return values[0].map((_, p) => values.map(channel => channel[p]));
}
