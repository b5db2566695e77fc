// What the reader chose, and whether it goes together. The limits are those of the fields in the page.

const DATA = JSON.parse(document.getElementById("data").textContent);

const KINDS = {
  standard: {name: "Standard", cost: "standard"},
  depthwise: {name: "Depthwise", cost: "depthwise"},
  pointwise: {name: "Pointwise 1×1", cost: "pointwise"},
  separable: {name: "Depthwise separable", cost: "separable"},
  grouped: {name: "Grouped", cost: "grouped"},
  cells: {name: "Cell convolution", cost: "standard", cloud: true},
  cellsSeparable: {name: "Cell, separable", cost: "separable", cloud: true},
};

/** The settings that matter to a kind; the others are kept for when they matter again. */
const USED = {
  standard: ["height", "width", "channelsIn", "channelsOut", "kernel", "stride", "padding", "dilation"],
  depthwise: ["height", "width", "channelsIn", "multiplier", "kernel", "stride", "padding", "dilation"],
  pointwise: ["height", "width", "channelsIn", "channelsOut", "stride"],
  separable: ["height", "width", "channelsIn", "channelsOut", "multiplier", "kernel", "stride", "padding", "dilation"],
  grouped: ["height", "width", "channelsIn", "channelsOut", "groups", "kernel", "stride", "padding", "dilation"],
  cells: ["points", "channelsIn", "channelsOut", "cellSize", "kernel", "dilation"],
  cellsSeparable: ["points", "channelsIn", "channelsOut", "cellSize", "kernel", "dilation"],
};

const PASSES = ["forward", "input", "weight"];

const isCloud = kind => Boolean(KINDS[kind].cloud);

/** The form's part for images or for clouds. */
const fieldsOf = kind => document.getElementById(isCloud(kind) ? "cloud-fields" : "image-fields");

/** The setting's field, an input or a select. */
const fieldOf = (kind, name) => fieldsOf(kind).querySelector(`[name="${name}"]`);

/** What stands in a field: a number, "same", or NaN for what is none. */
function valueOf(field) {
  if (field.value === "same") return "same";
  return field.value.trim() === "" ? NaN : Number(field.value);
}

/** All settings of a kind as they stand in the form. */
function readSettings(kind) {
  return Object.fromEntries(
    [...fieldsOf(kind).querySelectorAll("[name]")].map(field => [field.name, valueOf(field)]));
}

/** Puts settings into the form; those that are not named stay, and so does a choice among which there is no such. */
function writeSettings(kind, settings) {
  for (const [name, value] of Object.entries(settings)) {
    const field = fieldOf(kind, name);
    if (field.tagName === "SELECT" && ![...field.options].some(option => option.value === String(value))) continue;
    field.value = String(value);
  }
}

/** Why these settings do not go together, as a sentence; null where they do. */
function problemOf(kind, settings) {
  for (const name of USED[kind]) {
    const sentence = fieldProblem(fieldOf(kind, name), settings[name]);
    if (sentence) return {name, sentence};
  }
  if (kind === "grouped") {
    const {channelsIn, channelsOut, groups} = settings;
    if (channelsIn % groups || channelsOut % groups) {
      const which = commonDivisors(channelsIn, channelsOut).join(", ");
      return {name: "groups", sentence:
        `${groups} groups do not divide ${counted(channelsIn, "channel")} in and ` +
        `${counted(channelsOut, "channel")} out. ` +
        (which === "1" ? "Only 1 group does: change the channels." : `These numbers do: ${which}.`)};
    }
  }
  if (isCloud(kind) || kind === "pointwise") return null;
  const {kernel, stride, padding, dilation} = settings;
  const extent = (kernel - 1) * dilation + 1;
  const [rows, columns] = [settings.height, settings.width].map(size => {
    const edges = edgesOf(padding, size, kernel, stride, dilation);
    return size + edges[0] + edges[1];
  });
  if (extent > rows || extent > columns) {
    const spread = dilation > 1 ? ` with dilation ${dilation} reaches over ${extent} × ${extent} pixels` : "";
    return {name: "kernel", sentence:
      `A kernel of ${kernel} × ${kernel}${spread || " is too large"}: the input has only ${rows} × ${columns} pixels` +
      `${padding === 0 ? "" : ", padding included"}. ` +
      `Choose a smaller kernel${dilation > 1 ? " or dilation" : ""}, more padding or a larger input.`};
  }
  return null;
}

/** Why a field's value is none that it can have; null where it is. */
function fieldProblem(field, value) {
  if (field.tagName === "SELECT") return null;
  const label = field.dataset.name, low = Number(field.min), high = Number(field.max), step = Number(field.step || 1);
  const whole = Number.isInteger(step);
  const odd = step === 2;
  const fits = Number.isFinite(value) && value >= low && value <= high &&
    (!whole || Number.isInteger((value - low) / step));
  if (fits) return null;
  const what = odd ? "an odd number" : whole ? "a whole number" : "a number";
  return `${label} must be ${what} from ${low} to ${high}.`;
}

/** The example that has exactly these settings, as far as they matter. */
function exampleOf(kind, settings) {
  return DATA.examples.find(example =>
    example.kind === kind && USED[kind].every(name => example.settings[name] === settings[name]));
}

/** "1 channel", "2 channels". */
const counted = (count, noun) => `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;
