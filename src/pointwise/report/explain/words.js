// Numbers, sentences and tables. Indices count from 0 everywhere, as in Python.

/** A value with at most three digits behind the point. */
function num(value) {
  const rounded = Math.round(Math.abs(value) * 1000) / 1000;
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

/** The name of what a layer makes: z between two halves, else y. */
const outputName = (plan, number) => (number < plan.layers.length - 1 ? "z" : "y");
const inputName = number => (number === 0 ? "x" : "z");
const weightName = number => (number === 0 ? "w" : "v");

/** An output as it is written in Python. */
function indexOf(plan, place) {
  const name = outputName(plan, place.number);
  return isCloud(plan.kind)
    ? `${name}[${place.position}, ${place.channel}]`
    : `${name}[${place.channel}, ${place.row}, ${place.column}]`;
}

/** Where an output is, in words. */
function placeInWords(plan, place) {
  const whose = outputName(plan, place.number) === "z" ? "middle channel" : "output channel";
  return isCloud(plan.kind)
    ? `point ${place.position}, ${whose} ${place.channel}`
    : `${whose} ${place.channel}, row ${place.row}, column ${place.column}`;
}

/** What a step does, for eyes and for screen readers. */
function stepInWords(plan, place, terms) {
  const {layer} = place;
  const half = plan.layers.length === 1 ? "" : place.number === 0 ? " (first half)" : " (second half)";
  const start = `Step ${count(place.step + 1)} of ${count(plan.steps)}${half}: ${placeInWords(plan, place)}. `;
  const sum = `${indexOf(plan, place)} = ${num(valueAt(place))}.`;
  return start + whatMeets(plan, layer, place, terms) + " " + sum;
}

function whatMeets(plan, layer, place, terms) {
  if (layer.kind === "mix" || (layer.kind === "image" && layer.kernel === 1)) {
    const thing = isCloud(plan.kind) ? "point" : "pixel";
    return `${counted(terms.length, "channel")} of one ${thing}, each times its weight.`;
  }
  if (layer.kind === "cells") {
    const cells = layer.table[place.position];
    const neighbours = total(cells.map(({members}) => members.length));
    const empty = layer.kernel ** 3 - cells.length;
    return `${counted(neighbours, "neighbour")} in ${cells.length} of ${layer.kernel ** 3} cells` +
      `${empty ? ` (${empty} are empty and add nothing)` : ""}; ` +
      `the mean of each cell, in ${counted(layer.depthwise ? 1 : layer.channelsIn, "channel")}, times its weight.`;
  }
  const outside = terms.filter(term => !term.inside).length;
  const taps = `${layer.kernel} × ${layer.kernel} inputs`;
  const channels = layer.perGroup === 1
    ? `${taps} of channel ${terms[0].channel}`
    : `${taps} in each of ${layer.perGroup} channels`;
  return `${channels}, each times its weight: ${counted(terms.length, "product")}` +
    `${outside ? `, ${outside} of them with a zero of the padding` : ""}.`;
}

const valueAt = ({layer, channel, position}) => layer.values[channel][position];

const FIRST_PRODUCTS = 9;

/** The sum written out: the first products, how many more, and the result. */
function writeSum(target, plan, place, terms) {
  const shown = terms.length <= FIRST_PRODUCTS + 1 ? terms : terms.slice(0, FIRST_PRODUCTS);
  const parts = [element("span", {class: "what"}, indexOf(plan, place)), " = "];
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
  const columns = {
    image: [["Channel", t => t.channel], ["Row, column", t => (t.inside ? `${t.row}, ${t.column}` : "padding")],
            ["Input", t => num(t.value)], ["Weight", t => num(t.weight)], ["Product", t => num(t.product)]],
    cells: [["Cell", t => t.cell], ["Points", t => t.members.join(", ")], ["Channel", t => t.channel],
            ["Mean", t => num(t.value)], ["Weight", t => num(t.weight)], ["Product", t => num(t.product)]],
    mix: [["Channel", t => t.channel], ["Input", t => num(t.value)], ["Weight", t => num(t.weight)], ["Product", t => num(t.product)]],
  }[place.layer.kind];
  const head = element("thead", {}, element("tr", {}, ...columns.map(([name]) => element("th", {scope: "col"}, name))));
  const body = element("tbody", {}, ...terms.map(term =>
    element("tr", {}, ...columns.map(([, cell]) => element("td", {}, String(cell(term)))))));
  const foot = element("tfoot", {}, element("tr", {},
    element("th", {scope: "row", colspan: String(columns.length - 1)}, "Sum"),
    element("td", {}, num(valueAt(place)))));
  table.replaceChildren(element("caption", {}, `What makes ${indexOf(plan, place)}`), head, body, foot);
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
