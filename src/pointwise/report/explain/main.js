// Buttons, keys, playing: what happens when. All drawing follows from `state` through `show`.

const $ = id => document.getElementById(id);
const SPEEDS = [0.5, 1, 2, 4, 8, 16, 32];  // steps in a second

const NARROW = matchMedia("(max-width: 560px)");

const state = {kind: "standard", pass: "forward", plan: null, scene: null, step: 0, timer: null};

/** Takes what stands in the form: a new plan, or a sentence about what is wrong. step is where to begin. */
function take(step = null) {
  const kind = document.querySelector('[name="kind"]:checked').value;
  const pass = document.querySelector('[name="pass"]:checked').value;
  const view = state.scene && state.scene.view;
  Object.assign(state, {kind, pass});
  pause();
  showFields(kind, pass);
  const settings = readSettings(kind);
  const problem = problemOf(kind, settings);
  showProblem(kind, problem);
  state.plan = problem ? null : planOf(kind, settings, pass);
  const example = problem ? undefined : exampleOf(kind, settings);
  $("example").value = example ? example.name : "";
  $("work").hidden = Boolean(problem);
  if (problem) {
    $("sizes").textContent = "";
    return;
  }
  state.scene = isCloud(kind) ? buildCloud($("stage"), state.plan, pick, view) : buildPicture($("stage"), state.plan, pick);
  state.step = Math.min(state.plan.steps - 1, step ?? startOf(state.plan));
  showPlan();
  show();
}

function showFields(kind, pass) {
  $("image-fields").hidden = isCloud(kind);
  $("cloud-fields").hidden = !isCloud(kind);
  for (const field of fieldsOf(kind).querySelectorAll("[name]"))
    field.closest(".field").hidden = !USED[kind].includes(field.name);
  const about = pass === "forward" ? kind : isCloud(kind) ? {input: "cellsInput", weight: "cellsWeight"}[pass] : pass;
  for (const text of document.querySelectorAll("[data-about]"))
    text.classList.toggle("shown", text.dataset.about === about);
  for (const key of document.querySelectorAll(".for-cloud")) key.hidden = !isCloud(kind);
  for (const part of document.querySelectorAll(".for-forward")) part.hidden = pass !== "forward";
}

function showProblem(kind, problem) {
  $("problem").hidden = !problem;
  $("problem").textContent = problem ? problem.sentence : "";
  for (const field of document.querySelectorAll("#settings [name]")) {
    const wrong = Boolean(problem) && field === fieldOf(kind, problem.name);
    field.setAttribute("aria-invalid", String(wrong));
    if (field.closest(".stepper")) field.closest(".stepper").classList.toggle("wrong", wrong);
  }
}

/** What stays the same through all steps of a plan. */
function showPlan() {
  const {plan} = state;
  const {kind, pass, settings, cost, layers, last, stages} = plan;
  $("step").max = plan.steps;
  $("total").textContent = count(plan.products);
  $("bytes").textContent = plan.bytesAfter ? count(plan.bytesAfter[plan.steps - 1]) : "";
  $("parameters").textContent = count(cost.parameters);
  $("parameters-of").textContent = "= " + layers.map(layer => weightSizes(layer).join(" × ")).join(" + ");
  $("shape-of").textContent = pass === "forward" ? "Output" : stages[stages.length - 1].names.output;
  $("shape").textContent = `[${shapeOf(plan, stages[stages.length - 1]).join(", ")}]`;
  $("sizes").textContent = isCloud(kind)
    ? `${settings.points} points, ${settings.channelsIn} → ${last.channelsOut} channels`
    : `${settings.channelsIn} × ${settings.height} × ${settings.width} → ${last.channelsOut} × ${last.rows} × ${last.columns}`;
  $("count-note").textContent = countNote(plan);
  buildMaps($("maps"), plan);
  if (pass === "forward") showJobs();
}

function showJobs() {
  const large = isCloud(state.kind) ? LARGE_CLOUDS : LARGE_IMAGES;
  const names = ["the sizes above", ...large.map(job => job.name)];
  const select = $("job"), chosen = Math.max(0, names.indexOf(select.value));
  select.replaceChildren(...names.map(name => element("option", {}, name)));
  select.selectedIndex = chosen;
  showCosts();
}

function showCosts() {
  const {plan} = state;
  const large = (isCloud(plan.kind) ? LARGE_CLOUDS : LARGE_IMAGES)[$("job").selectedIndex - 1];
  writeCosts($("costs"), large ? largeJob(large, plan.job) : plan.job, KINDS[plan.kind].cost);
}

/** Draws the step of the state and writes its numbers. */
function show() {
  const {plan, scene, step} = state;
  const place = placeOf(plan, step);
  const terms = termsOf(place.layer, place.channel, place.position);
  const width = $("stage").clientWidth;
  if (isCloud(plan.kind)) drawCloud(scene, plan, place, terms, width, stageHeight());
  else drawPicture(scene, plan, place, terms, width, stageHeight());
  $("words").textContent = stepInWords(plan, place, terms);
  writeSum($("sum"), plan, place, terms);
  if ($("numbers").open) writeTable($("products"), plan, place, terms);
  $("step").value = step + 1;
  $("step").setAttribute("aria-valuetext", `${step + 1} of ${plan.steps}: ${placeInWords(place)}`);
  $("step-shown").textContent = `${count(step + 1)} of ${count(plan.steps)}`;
  drawMaps($("maps"), plan, place);
  const done = multiplicationsAfter(plan, step);
  $("done").textContent = count(done);
  $("done-bar").style.setProperty("--done", `${100 * done / plan.products}%`);
  if (plan.bytesAfter) showBytes(plan, step);
  if (state.timer === null) writeLink();
}

function showBytes({bytesAfter, steps, layers}, step) {
  $("moved").textContent = count(bytesAfter[step]);
  $("moved-bar").style.setProperty("--done", `${100 * bytesAfter[step] / bytesAfter[steps - 1]}%`);
  const unread = step === steps - 1 ? unreadBytes(layers[0]) : 0;
  $("unread").textContent = unread ? `${count(unread)} bytes of the input were never read.` : "";
}

/** How many bytes of an image no output looks at: with large strides there are such pixels. */
function unreadBytes(layer) {
  if (layer.kind !== "image") return 0;
  const read = new Set();
  for (let o = 0; o < layer.channelsOut; o++) {
    if (!readsOthers(layer, o)) continue;
    for (let p = 0; p < layer.positions; p++) for (const key of inputsRead(layer, o, p)) read.add(key);
  }
  return FLOAT_BYTES * (layer.x.flat(2).length - read.size);
}

/** How the numbers are counted, in words. */
function countNote({kind, pass, layers, settings}) {
  if (pass !== "forward") return "";
  const start = isCloud(kind)
    ? "Multiplications are those with means of occupied cells; to form the means takes " +
      `${count(occupiedCells(layers[0]) * settings.channelsIn)} more, once for all outputs. ` +
      "Bytes: each feature, weight and output once, 4 each, and the table of neighbours"
    : "Multiplications with zeros of the padding are counted, as in the literature. " +
      "Bytes: each input that is read, each weight and output once, 4 each";
  return start + (layers.length > 1 ? "; what lies between the halves stays in the cache." : ".");
}

/** How high the picture may be, so that all of it stays in the window. */
function stageHeight() {
  if (NARROW.matches) return 960;
  const top = $("stage").getBoundingClientRect().top + window.scrollY;
  return Math.max(330, window.innerHeight - top - 24);
}

function go(step) {
  if (!state.plan) return;
  state.step = Math.max(0, Math.min(state.plan.steps - 1, step));
  show();
}

function pick(step) {
  pause();
  go(step);
}

function play() {
  if (!state.plan) return;
  if (state.step === state.plan.steps - 1) go(0);
  $("words").setAttribute("aria-live", "off");  // a screen reader could not keep up; it hears the end
  state.timer = setInterval(() => {
    go(state.step + 1);
    if (state.step === state.plan.steps - 1) pause();
  }, 1000 / $("speed").value);
  showPlaying();
}

function pause() {
  if (state.timer === null) return;
  clearInterval(state.timer);
  state.timer = null;
  showPlaying();
  $("words").setAttribute("aria-live", "polite");
  if (state.plan) show();
}

function showPlaying() {
  const playing = state.timer !== null;
  $("play").classList.toggle("playing", playing);
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
}

const toggle = () => (state.timer === null ? play() : pause());

/** A new speed takes effect at once. */
function changeSpeed() {
  if (state.timer === null) return;
  pause();
  play();
}

/** The step that an arrow key in the outputs leads to; null for other keys. */
function walked(key) {
  const place = placeOf(state.plan, state.step);
  const {positions, columns, rows} = place.layer;
  const down = rows === 1 && isCloud(state.kind) ? positions : columns;
  const moves = {ArrowUp: -down, ArrowDown: down, PageUp: -positions, PageDown: positions};
  if (!(key in moves)) return null;
  const target = state.step + moves[key], within = target - place.layer.first;
  return within >= 0 && within < positions * place.layer.channelsOut ? target : state.step;
}

const VIEW_KEYS = {ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", "+": "nearer", "=": "nearer", "-": "farther", "0": "back"};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !state.plan) return;
  const {target, key} = event;
  const inView = target.id === "view";
  if (target.matches("select, input, textarea")) return;
  const walk = target.dataset.walk && walked(key);
  const scrolls = target.matches(".scroll");
  if (inView && key in VIEW_KEYS) turnView(state.scene.view, VIEW_KEYS[key]);
  else if (inView && (key === "," || key === ".")) pick(state.step + (key === "." ? 1 : -1));
  else if (typeof walk === "number") pick(walk);
  else if (key === "ArrowLeft" && !scrolls) pick(state.step - 1);
  else if (key === "ArrowRight" && !scrolls) pick(state.step + 1);
  else if (key === "Home" && !scrolls) pick(0);
  else if (key === "End" && !scrolls) pick(state.plan.steps - 1);
  else if (key === " " && !target.matches("button, summary, a")) toggle();
  else return;
  event.preventDefault();
}

/** Buttons beside a number field, for fingers and mice; the keyboard has its arrows. */
function addStepper(input) {
  const stepper = element("span", {class: "stepper"});
  input.replaceWith(stepper);
  const button = (text, by) => {
    const made = element("button", {type: "button", tabindex: "-1", "aria-hidden": "true"}, text);
    made.addEventListener("click", () => {
      if (by < 0) input.stepDown(); else input.stepUp();
      take();
    });
    return made;
  };
  input.classList.toggle("long", input.name === "cellSize");
  stepper.append(button("−", -1), input, button("+", 1));
}

/** Chooses a convolution and a pass, and puts settings into the form. */
function choose(kind, settings, pass = "forward") {
  document.querySelector(`[name="kind"][value="${kind}"]`).checked = true;
  document.querySelector(`[name="pass"][value="${pass}"]`).checked = true;
  writeSettings(kind, settings);
}

function showExample() {
  const example = DATA.examples.find(({name}) => name === $("example").value);
  if (!example) return;
  choose(example.kind, example.settings, state.pass);
  take();
}

function start() {
  readColors();
  for (const input of document.querySelectorAll('#settings input[type="number"]')) addStepper(input);
  $("example").append(element("option", {value: ""}, "your own sizes"),
    ...DATA.examples.map(({name}) => element("option", {value: name}, name)));
  $("speed").append(...SPEEDS.map(speed => element("option", {value: speed}, `${speed} a second`)));
  $("speed").value = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1 : 2;
  writeSettings("standard", DATA.image.start);
  writeSettings("cells", DATA.cloud.start);
  listLessons();
  if (NARROW.matches) $("settings").open = $("keys").open = false;  // the picture comes first
  listenToControls();
  followLink();
}

function listenToControls() {
  $("choice").addEventListener("submit", event => event.preventDefault());
  $("choice").addEventListener("input", event => (event.target.id === "example" ? showExample() : take()));
  $("pass").addEventListener("input", () => take());
  $("first").addEventListener("click", () => pick(0));
  $("previous").addEventListener("click", () => pick(state.step - 1));
  $("next").addEventListener("click", () => pick(state.step + 1));
  $("last").addEventListener("click", () => pick(state.plan.steps - 1));
  $("play").addEventListener("click", toggle);
  $("step").addEventListener("input", () => pick($("step").value - 1));
  $("speed").addEventListener("input", changeSpeed);
  $("job").addEventListener("input", showCosts);
  $("lesson").addEventListener("input", () => openLesson($("lesson").selectedIndex - 1, 0));
  $("link").addEventListener("click", copyLink);
  window.addEventListener("hashchange", followLink);
  $("numbers").addEventListener("toggle", () => state.plan && show());
  document.addEventListener("keydown", onKey);
  window.addEventListener("resize", () => state.plan && show());
  NARROW.addEventListener("change", () => { if (!NARROW.matches) $("settings").open = true; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColors();
    if (state.plan) show();
  });
}

start();
