// Learning new classes: what is ready, what will be checked, how it goes, and what came of it.

import { ask, attempt, choose, find, json, make, may, state } from "./tools.js";
import { has, of100, say } from "./words.js";
import { reasonsOf } from "./versions.js";

const POLL = 1000;  // milliseconds between looks at a training
let watching = 0;
let ended = () => {};
let last = null;  // the training that was shown
let classes = { ready: [], waiting: [] };

export async function showLearning() {
  const given = (await json("GET", "/datastore/labels")).filter((one) => !one.known);
  classes = { ready: given.filter((one) => !one.missing), waiting: given.filter((one) => one.missing) };
  const list = (word, ones, item, count) => (ones.length ? [make("p", { textContent: say(word) }),
    make("ul", {}, ...ones.map((one) => make("li", { textContent: say(item, { ...one, n: one[count] }) })))] : []);
  find("ready").replaceChildren(...list("learn.ready", classes.ready, "learn.item", "images"), ...list("learn.waiting", classes.waiting, "learn.missing", "missing"));
  if (!given.length) find("ready").append(make("p", { textContent: say("learn.none") }));
  const { ready } = classes;
  find("learn").textContent = ready.length ? say("learn.button", { n: ready.length, label: ready[0].label }) : say("learn.nothing");
  showButtons();
}
export function showChecks(gate) {
  const asked = [["class", gate.class_margin], ["mean", gate.mean_margin], ["floor", gate.class_floor], ["all", gate.mean_floor]];
  const lines = asked.filter(([, share]) => share !== undefined).map(([name, share]) => say(`learn.check.${name}`, { n: of100(share) }));
  find("checks").replaceChildren(...[...lines, say("learn.check.else")].map((textContent) => make("li", { textContent })));
}
function showButtons() {
  find("learn").disabled = !classes.ready.length || state.running || !may("admin");
  find("stop").hidden = !state.running || !may("admin");
}
async function start() {
  const names = classes.ready.map((one) => one.label).join(", "), waiting = classes.waiting.map((one) => one.label).join(", ");
  if (!await choose(say(waiting ? "learn.ask.without" : "learn.ask", { names, waiting }), [["yes", say("learn.yes")]])) return;
  const epochs = find("epochs").valueAsNumber;
  await attempt(async () => {
    await json("POST", `/train/${encodeURIComponent(state.model)}`, epochs ? { max_epochs: epochs } : {});
    await watch();
  });
}
/** Look at the last training until it has ended. */
export async function watch() {
  clearTimeout(watching);
  let task;
  try {
    task = await json("GET", "/train/");
  } catch (error) {
    if (error.status !== 404) watching = setTimeout(watch, 5 * POLL);  // away for a moment, as in a restart
    return;
  }
  const before = state.running;
  state.running = task.status === "RUNNING";
  showTraining(task);
  if (state.running) watching = setTimeout(watch, POLL);
  if (before !== state.running) { showButtons(); await ended(); }
}
function showTraining(task) {
  last = task;
  const { stage, number = 0, stages: count = 0, epoch = 0, epochs = 0 } = task.progress || {};
  const names = task.request.classes.join(", "), left = task.request.left_out || [], result = task.result || {};
  find("training").hidden = false;
  find("log").textContent = (task.details || []).join("\n");
  for (const id of ["training-bar", "training-step"]) find(id).hidden = !state.running;
  const without = left.length ? ` ${say("training.without", { names: left.join(", ") })}` : "";
  if (state.running) {
    find("training-text").textContent = say("training.running", { names }) + without;
    const bar = find("training-bar"), testing = stage === "testing the version";
    if (count || testing) bar.value = testing ? 0.97 : 0.95 * (number - 1 + (epochs ? epoch / epochs : 0)) / count; else bar.removeAttribute("value");
    const named = has(`stage.${stage}`) ? say(`stage.${stage}`) : String(stage ?? "").replaceAll("_", " ");
    const minutes = Math.max(0, Math.floor((Date.now() - new Date(`${task.start_ts.replace(" ", "T")}Z`)) / 60000));
    find("training-step").textContent = `${say(epochs ? "training.pass" : "training.step", { number: number || 1, count: count || 1, stage: named, epoch, epochs })} ${say("training.since", { minutes })}`;
    find("training-result").replaceChildren();
    return;
  }
  const parts = { names, version: result.version, reason: result.reason || task.status };
  const word = result.promoted ? "promoted" : task.status === "STOPPED" ? "stopped" : task.status === "DONE" ? "refused" : "failed";
  find("training-text").textContent = say(`training.${word}`, parts) + without;
  find("training-result").replaceChildren();
  if (word === "refused" && result.version) attempt(async () => find("training-result").replaceChildren(await reasonsOf(result.version)));
}
/** Show anew what is in words of the language. */
export function sayTraining() { if (last) showTraining(last); }
export function startLearning(whenEnded) {
  ended = whenEnded;
  find("learn-form").onsubmit = (event) => { event.preventDefault(); start(); };
  find("stop").onclick = () => attempt(async () => { await ask("DELETE", "/train/"); await watch(); });
}
