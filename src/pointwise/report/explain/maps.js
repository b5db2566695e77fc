// All weights of a layer on one small map: a row for each output, a column for each input channel, the
// kernel where they meet. Where two never meet there is nothing.

const MAP_SIDE = 150, MAP_GAP = 2;

function buildMaps(target, plan) {
  target.replaceChildren(...plan.layers.map(layer => element("figure", {class: "map"},
    element("canvas", {role: "img"}),
    element("figcaption", {}, "all weights ", element("code", {}, `${layer.names.weight} [${weightSizes(layer).join(", ")}]`)))));
}

/** The input channels that output o of a layer has weights for. */
function channelsRead(layer, o) {
  const own = layer.kind === "image" ? layer.perGroup : layer.depthwise ? 1 : layer.channelsIn;
  const first = layer.kind === "image" ? Math.floor(o / layer.outputsPerGroup) * own : layer.depthwise ? o : 0;
  return Array.from({length: own}, (_, i) => first + i);
}

/** The weights that tie an output to the i-th channel it reads, as rows; a cube's layers lie side by side. */
function weightsBetween(layer, o, i) {
  if (layer.kind === "image") return layer.weight[o][i];
  if (layer.kind === "mix") return [[layer.weight[o][i]]];
  const {kernel} = layer, flat = layer.weight[o][i];
  return Array.from({length: kernel}, (_, y) => Array.from({length: kernel ** 2}, (_, zx) =>
    flat[Math.floor(zx / kernel) * kernel ** 2 + y * kernel + zx % kernel]));
}

function drawMaps(target, plan, place) {
  [...target.children].forEach((figure, n) => drawMap(figure.firstChild, plan.layers[n], place));
}

/** The weights that a step has to do with: {o: output, c: first channel, count: of channels}. */
function mapFrames(layer, {layer: stage, channel, position}) {
  if (layer === stage) return [{o: channel, c: channelsRead(layer, channel)[0], count: channelsRead(layer, channel).length}];
  if (layer !== stage.layer) return [];
  if (stage.kind.endsWith("Input")) return outputsReading(layer, channel).map(o => ({o, c: channel, count: 1}));
  return [{o: channel, c: channelsRead(layer, channel)[indicesOf(stage, channel, position)[1]], count: 1}];
}

function drawMap(canvas, layer, place) {
  const {channelsIn, channelsOut} = layer;
  const block = weightsBetween(layer, 0, 0), rows = block.length, columns = block[0].length;
  const fitting = (blocks, cells) => Math.floor((MAP_SIDE / blocks - MAP_GAP) / cells);
  const cell = Math.max(1, Math.min(10, fitting(channelsIn, columns), fitting(channelsOut, rows)));
  const [wide, tall] = [columns * cell + MAP_GAP, rows * cell + MAP_GAP];
  const context = sized(canvas, channelsIn * wide + 6, channelsOut * tall + 6);
  context.translate(3, 3);
  context.fillStyle = COLORS.empty;
  context.fillRect(0, 0, channelsIn * wide, channelsOut * tall);
  const most = largest(layer.weight);
  for (let o = 0; o < channelsOut; o++) {
    const read = channelsRead(layer, o);
    read.forEach((c, i) => weightsBetween(layer, o, i).forEach((row, a) => row.forEach((weight, b) => {
      context.fillStyle = cssColor(shade(weight, most));
      context.fillRect(c * wide + b * cell + MAP_GAP / 2, o * tall + a * cell + MAP_GAP / 2, cell, cell);
    })));
  }
  for (const {o, c, count} of mapFrames(layer, place)) frame(context, c * wide, o * tall, count * wide, tall, COLORS.mark, 2);
  const each = channelsRead(layer, 0).length;
  canvas.setAttribute("aria-label",
    `${counted(channelsOut, "output")}, each with weights for ${each} of ${counted(channelsIn, "channel")}`);
}
