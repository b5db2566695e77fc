// The fragment of the address: #kind&setting=value&…&pass=…&step=…&lesson=…, so that a link restores what is seen.

/** What is on the screen, as a fragment without the #. */
function fragmentOf({kind, pass, step, plan}, lesson) {
  const parts = [kind, ...USED[kind].map(name => `${name}=${plan.settings[name]}`)];
  if (pass !== "forward") parts.push(`pass=${pass}`);
  if (step !== startOf(plan)) parts.push(`step=${step + 1}`);
  if (lesson) parts.push(`lesson=${lesson.number + 1}.${lesson.page + 1}`);
  return parts.join("&");
}

/** {kind, pass, settings, step, lesson} of a fragment; what it does not name, or names wrongly, is left out. */
function readFragment(fragment) {
  const [kind, ...parts] = fragment.split("&");
  const given = new Map(parts.filter(part => part.includes("=")).map(part => part.split("=", 2)));
  if (!(kind in KINDS)) return null;
  const settings = Object.fromEntries(USED[kind].filter(name => given.has(name)).map(name => [name, given.get(name)]));
  const pass = PASSES.includes(given.get("pass")) ? given.get("pass") : "forward";
  const step = Number(given.get("step"));
  const lesson = /^(\d+)\.(\d+)$/.exec(given.get("lesson") ?? "");
  return {
    kind, pass, settings, step: Number.isInteger(step) && step > 0 ? step - 1 : null,
    lesson: lesson ? [lesson[1] - 1, lesson[2] - 1] : null,
  };
}

/** Puts what the address says on the screen. */
function followLink() {
  const fragment = location.hash.slice(1);
  if (state.plan && fragment === fragmentOf(state, lessonNow())) return;
  const asked = readFragment(fragment);
  if (asked) {
    choose(asked.kind, asked.settings, asked.pass);
    showLesson(...(asked.lesson ?? [-1, 0]));
  }
  take(asked ? asked.step : null);
}

/** The address follows what is seen; the browser's way back stays as it was. */
function writeLink() {
  const fragment = `#${fragmentOf(state, lessonNow())}`;
  $("link").href = fragment;
  if (location.hash !== fragment) history.replaceState(null, "", fragment);
}

/** Copies the whole address, where the browser lets a page do so; else the address bar has it. */
function copyLink(event) {
  event.preventDefault();
  const told = text => {
    $("link-told").textContent = text;
    setTimeout(() => { $("link-told").textContent = ""; }, 4000);
  };
  if (!navigator.clipboard) return told("It stands in the address bar.");
  navigator.clipboard.writeText($("link").href).then(() => told("Copied."), () => told("It stands in the address bar."));
}
