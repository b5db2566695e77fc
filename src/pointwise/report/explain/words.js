// Numbers, sentences and tables. Indices count from 0 everywhere, as in Python.

/** A value with at most so many digits behind the point. */
function num(value, digits = 3) {
  const scale = 10 ** digits, rounded = Math.round(Math.abs(value) * scale) / scale;
  return (value < 0 && rounded > 0 ? "−" : "") + rounded;
}

/** The same inside a product or a sum, where a minus needs brackets. */
const bracketed = value => (num(value).startsWith("−") ? `(${num(value)})` : num(value));

const count = value => value.toLocaleString("en-US");

/** An element with text or children. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** The sizes of what a stage makes, as in PyTorch. */
function shapeOf(plan, stage) {
  if (stage.kind.endsWith("Weight")) return weightSizes(stage.layer);
  return isCloud(plan.kind) ? [stage.positions, stage.channelsOut] : [stage.channelsOut, stage.rows, stage.columns];
}

/** The sizes of a layer's weight, as in PyTorch. */
function weightSizes(layer) {
  if (layer.kind === "image") return [layer.channelsOut, layer.perGroup, layer.kernel, layer.kernel];
  if (layer.kind === "mix") return [layer.channelsOut, layer.channelsIn];
  return [layer.channelsOut, layer.depthwise ? 1 : layer.channelsIn, layer.kernel, layer.kernel, layer.kernel];
}

/** Where in its tensor an output of a stage is. */
function indicesOf(stage, channel, position) {
  const {kernel} = stage.layer ?? stage;
  const row = Math.floor(position / stage.columns), column = position % stage.columns;
  if (stage.kind === "imageWeight") return [channel, Math.floor(column / kernel), row, column % kernel];
  if (stage.kind === "cellsWeight") {
    const cell = position % kernel ** 3;
    return [channel, Math.floor(position / kernel ** 3), Math.floor(cell / kernel ** 2), Math.floor(cell / kernel) % kernel, cell % kernel];
  }
  if (stage.kind === "mixWeight") return [channel, position];
  return stage.kind.startsWith("image") ? [channel, row, column] : [position, channel];
}

/** An output as it is written in Python. */
const indexAt = (stage, channel, position) => `${stage.names.output}[${indicesOf(stage, channel, position).join(", ")}]`;
const indexOf = ({layer, channel, position}) => indexAt(layer, channel, position);

/** What the inputs of a step are multiplied by, as it is written in Python. */
function besideName({layer, channel}) {
  const turned = layer.kind === "imageInput" && layer.layer.kernel > 1 ? ", turned" : "";
  if (!layer.kind.endsWith("Input")) return `${layer.names.weight}[${layer.kind.startsWith("image") ? "" : layer.layer ? ":, " : ""}${channel}]`;
  return `${layer.names.weight}[:, ${layer.layer.depthwise ? 0 : channel % (layer.layer.perGroup ?? Infinity)}]${turned}`;
}

/** Where an output is, in words. */
function placeInWords({layer, channel, position, row, column}) {
  if (layer.kind.endsWith("Weight")) return `weight ${indicesOf(layer, channel, position).join(", ")}`;
  const whose = {z: "middle channel", y: "output channel"}[layer.names.output] ?? "channel";
  return layer.kind.startsWith("image")
    ? `${whose} ${channel}, row ${row}, column ${column}` : `point ${position}, ${whose} ${channel}`;
}

/** What a step does, for eyes and for screen readers. */
function stepInWords(plan, place, terms) {
  const half = plan.stages.length === 1 ? "" : place.number === 0 ? " (first half)" : " (second half)";
  const start = `Step ${count(place.step + 1)} of ${count(plan.steps)}${half}: ${placeInWords(place)}. `;
  return `${start}${whatMeets(plan, place, terms)} ${indexOf(place)} = ${num(valueAt(place))}.`;
}

function whatMeets(plan, {layer, position}, terms) {
  const outside = terms.filter(term => !term.inside).length;
  const zeros = outside ? `, ${outside} of them with a zero of the padding` : "";
  if (layer.kind.endsWith("Input")) {
    if (layer.kind === "cellsInput")
      return `${counted(new Set(terms.map(({point}) => point)).size, "point")} had it in a cell: the gradient of each, ` +
        "divided among all in that cell, times the cell’s weight.";
    return `It had a part in ${counted(terms.length, "output")}: the gradient of each, times the weight that it met there.`;
  }
  if (layer.kind.endsWith("Weight"))
    return `It was used ${counted(terms.length, "time")}: ${layer.kind === "cellsWeight" ? "the mean of the cell" : "the input there"}, ` +
      `times the gradient of the output${zeros}.`;
  if (layer.kind === "mix" || (layer.kind === "image" && layer.kernel === 1)) {
    const thing = isCloud(plan.kind) ? "point" : "pixel";
    return `${counted(terms.length, "channel")} of one ${thing}, each times its weight.`;
  }
  if (layer.kind === "cells") {
    const cells = layer.table[position];
    const neighbours = total(cells.map(({members}) => members.length));
    const empty = layer.kernel ** 3 - cells.length;
    return `${counted(neighbours, "neighbour")} in ${cells.length} of ${layer.kernel ** 3} cells` +
      `${empty ? ` (${empty} are empty and add nothing)` : ""}; ` +
      `the mean of each cell, in ${counted(layer.depthwise ? 1 : layer.channelsIn, "channel")}, times its weight.`;
  }
  const taps = `${layer.kernel} × ${layer.kernel} inputs`;
  const channels = layer.perGroup === 1
    ? `${taps} of channel ${terms[0].channel}`
    : `${taps} in each of ${layer.perGroup} channels`;
  return `${channels}, each times its weight: ${counted(terms.length, "product")}${zeros}.`;
}

const valueAt = ({layer, channel, position}) => layer.values[channel][position];

const FIRST_PRODUCTS = 9;

/** The sum written out: the first products, how many more, and the result. */
function writeSum(target, plan, place, terms) {
  const shown = terms.length <= FIRST_PRODUCTS + 1 ? terms : terms.slice(0, FIRST_PRODUCTS);
  const parts = [element("span", {class: "what"}, indexOf(place)), " = "];
  shown.forEach((term, i) => {
    if (i > 0) parts.push(" + ");
    parts.push(element("span", {class: "product"},
      element("span", {class: "input"}, bracketed(term.value)), " × ",
      element("span", {class: "weight"}, bracketed(term.weight))));
  });
  if (terms.length > shown.length)
    parts.push(" + ", element("span", {class: "more"}, `… ${count(terms.length - shown.length)} more`));
  if (terms.length === 0) parts.push("0");
  parts.push(" = ", element("strong", {id: "result"}, num(valueAt(place))));
  target.replaceChildren(...parts);
  // Room for the longest sum of this plan, so that nothing below it moves while playing.
  const most = isCloud(plan.kind) ? FIRST_PRODUCTS : shown.length;
  target.style.minHeight = `${1.75 * Math.ceil((most + 2) / (isCloud(plan.kind) ? 2.5 : 3))}em`;
}

/** All products of a step as the rows of a table. */
function writeTable(table, plan, place, terms) {
  const [input, weight] = {Input: ["Gradient", "Weight"], Weight: ["Input", "Gradient"]}[place.layer.kind.match(/Input|Weight/)] ?? ["Input", "Weight"];
  const pair = [[input, t => num(t.value)], [weight, t => num(t.weight)], ["Product", t => num(t.product)]];
  const columns = {
    image: [["Channel", t => t.channel], ["Row, column", t => (t.inside ? `${t.row}, ${t.column}` : "padding")], ...pair],
    imageInput: [["Output", t => `${t.channel}, ${t.row}, ${t.column}`], ["Weight at", t => `${t.a}, ${t.b}`], ...pair],
    cells: [["Cell", t => t.cell], ["Points", t => t.members.join(", ")], ["Channel", t => t.channel], ["Mean", pair[0][1]], ...pair.slice(1)],
    cellsInput: [["Point", t => t.point], ["Cell", t => t.cell], ["Among", t => t.count], ["Channel", t => t.channel], ...pair],
    cellsWeight: [["Point", t => t.point], ["Points", t => t.members.join(", ")], ["Mean", pair[0][1]], ...pair.slice(1)],
    mixWeight: [["Point", t => t.point], ...pair],
  };
  columns.imageWeight = columns.image;
  columns.mix = columns.mixInput = [["Channel", t => t.channel], ...pair];
  const shown = columns[place.layer.kind];
  const head = element("thead", {}, element("tr", {}, ...shown.map(([name]) => element("th", {scope: "col"}, name))));
  const body = element("tbody", {}, ...terms.map(term =>
    element("tr", {}, ...shown.map(([, cell]) => element("td", {}, String(cell(term)))))));
  const foot = element("tfoot", {}, element("tr", {},
    element("th", {scope: "row", colspan: String(shown.length - 1)}, "Sum"),
    element("td", {}, num(valueAt(place)))));
  table.replaceChildren(element("caption", {}, `What makes ${indexOf(place)}`), head, body, foot);
}

const COST_NAMES = {
  standard: "Standard", grouped: "Grouped", separable: "Depthwise separable",
  depthwise: "Depthwise", pointwise: "Pointwise 1×1",
};

/** The costs of all convolutions that could do a job, the one on the screen marked. */
function writeCosts(body, job, current) {
  const costs = costsOf(job);
  const most = Math.max(...costs.map(cost => cost.multiplications));
  const whole = costs[0].multiplications;
  body.replaceChildren(...costs.map(cost => {
    const none = cost.kind === "grouped" && job.groups === 1;
    const share = 100 * cost.multiplications / whole;
    const name = element("th", {scope: "row"}, COST_NAMES[cost.kind], element("small", {}, costNote(cost, job)));
    const row = element("tr", {"data-kind": cost.kind}, name,
      element("td", {}, none ? "–" : count(cost.parameters)),
      element("td", {}, none ? "–" : count(cost.multiplications)),
      element("td", {class: "share"}, none ? "–" : percent(share), element("i", {class: "share-bar", "aria-hidden": "true"})));
    if (cost.kind === current) row.setAttribute("aria-current", "true");
    row.style.setProperty("--share", none ? 0 : cost.multiplications / most);
    return row;
  }));
}

const percent = share => (share >= 9.95 ? share.toFixed(0) : share.toFixed(1)) + " %";

function costNote(cost, job) {
  if (cost.kind === "grouped")
    return job.groups === 1 ? "no number of groups divides both" : `${job.groups} groups that do not meet`;
  if (cost.kind === "depthwise") {
    const other = cost.channelsOut === job.channelsOut ? "" : `, gives ${count(cost.channelsOut)}`;
    return `mixes no channels${other}`;
  }
  if (cost.kind === "pointwise") return "sees no neighbours";
  if (cost.kind === "separable") return job.multiplier === 1 ? "two halves" : `two halves, multiplier ${job.multiplier}`;
  return "sees and mixes all";
}
