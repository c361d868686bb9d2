// The versions: which one answers, two of them side by side, and the way back.

import { attempt, choose, find, json, make, may, person } from "./tools.js";
import { of100, say, time } from "./words.js";

let all = { served: null, back: null, gate: {}, versions: [] };
let changed = () => {};

export async function loadVersions() {
  all = await json("GET", "/tasks");
  return all;
}
export function showVersions() {
  const { served, back, versions } = all;
  const own = versions.find((version) => version.number === served);
  const since = own?.promoted.at(-1);
  find("served-text").textContent = own ? say("versions.since", { version: served, time: time(since.time), by: person(since.by) }) : say("versions.none");
  find("back").hidden = back === null || !may("admin");
  find("back").textContent = say("versions.back", { version: back });
  find("version-rows").replaceChildren(...versions.toReversed().map((version) => {
    const state = version.number === served ? ["good", "versions.served"] : version.objections.length ? ["bad", "versions.refused"] : ["", "versions.kept"];
    return make("tr", {}, make("th", { scope: "row", textContent: version.number }), make("td", { textContent: version.learnt.classes.join(", ") }),
      make("td", { className: "number", textContent: of100(version.mean_class_recall) }), make("td", { textContent: time(version.added) }),
      make("td", { className: state[0], textContent: say(state[1]) }), make("td", {}, ...again(version)));
  }));
  find("compare-box").hidden = !versions.length;
  if (versions.length) fill(versions);
}
/** Return the button that lets a version answer again, where it has answered before. */
function again({ number, promoted }) {
  if (number === all.served || !promoted.length || !may("admin")) return [];
  const button = make("button", { type: "button", className: "small", textContent: say("versions.serve"), onclick: () => serve(number, `/tasks/${number}/serve`) });
  button.ariaLabel = say("versions.serve.one", { version: number });
  return [button];
}
async function serve(version, path) {
  const parts = { version, served: all.served };
  if (!await choose(say("versions.serve.ask", parts), [["yes", say("versions.serve.yes", parts)]])) return;
  await attempt(async () => {
    const { served } = await json("POST", path);
    await changed();
    find("served-text").textContent += ` ${say("versions.went", { version: served })}`;
  });
}
function fill(versions) {
  const kept = [find("this").value, find("with").value];
  const option = (version) => make("option", { value: version.number, textContent: say("versions.version") + ` ${version.number}` });
  find("this").replaceChildren(...versions.toReversed().map(option));
  find("with").replaceChildren(...versions.toReversed().map(option), make("option", { value: "", textContent: say("compare.nothing") }));
  const newest = versions.at(-1);
  const fits = kept[0] && versions.length === fill.count;
  fill.count = versions.length;
  find("this").value = fits ? kept[0] : newest.number;
  find("with").value = fits ? kept[1] : newest.number === all.served ? newest.parent ?? "" : all.served ?? "";
  attempt(compare);
}
async function compare() {
  const [number, other] = [find("this").value, find("with").value];
  const found = await json("GET", `/tasks/compare?number=${number}${other ? `&other=${other}` : ""}`);
  find("compare-before").textContent = other ? say("compare.of", { version: other }) : "";
  find("compare-now").textContent = say("compare.of", { version: number });
  find("compare-rows").replaceChildren(...found.classes.map((one) => make("tr", {}, make("th", { scope: "row", textContent: one.name }),
    make("td", { className: "number", textContent: one.is_new ? "" : of100(one.before) }), make("td", { className: "number", textContent: of100(one.recall) }),
    make("td", {}, change(one), make("span", { className: "soft", textContent: one.images ? ` ${say("compare.tested", { n: one.images })}` : "" })),
    make("td", {}, ...verdict(one)))));
  const failed = found.classes.filter((one) => !one.passes).length;
  find("compare-text").textContent = [failed ? say("compare.some", { n: failed }) : say("compare.all"), ...found.means.map(ofMean)].join(" ");
  if (find("steps").open) await steps();
}
/** Say in words what became of a class. */
function change(one) {
  if (!one.images) return say("compare.untested");
  if (!one.recall && !one.before) return say(one.is_new ? "compare.unlearnt" : "compare.never");
  if (one.is_new) return say("compare.fresh", { label: one.name, n: of100(one.recall) });
  const fewer = Math.round(100 * (one.lost - one.gained) / one.images);
  return fewer ? say(fewer > 0 ? "compare.fewer" : "compare.more", { label: one.name, n: Math.abs(fewer) }) : say("compare.same");
}
const ofMean = ({ measure, bound, limit }) => say(`compare.${measure}`, { n: of100(bound), limit: of100(limit) });
function verdict(one) {
  if (one.passes) return [make("span", { className: one.recall ? "good" : "", textContent: say("compare.passes") })];
  const bound = say(one.is_new ? "compare.bound.new" : "compare.bound.old", { n: of100(one.bound), limit: of100(one.limit) });
  return [make("span", { className: "bad", textContent: say(one.decided ? "compare.fails" : "compare.open") }),
    make("span", { className: "soft", textContent: ` ${bound}` })];
}
/** Return why a version does not answer, class by class, and of all classes together. */
export async function reasonsOf(number) {
  const found = await json("GET", `/tasks/compare?number=${number}${all.served ? `&other=${all.served}` : ""}`);
  return make("ul", {}, ...found.classes.filter((one) => !one.passes).map((one) => make("li", {}, make("b", { textContent: `${one.name}: ` }), change(one), " ", ...verdict(one))),
    ...found.means.map((mean) => make("li", { textContent: ofMean(mean) })));
}
/** Return the relative luminance of a colour of three numbers, 0..255 (WCAG 2). */
function brightness(colour) {
  const [red, green, blue] = colour.map((part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
async function steps() {
  const version = await json("GET", `/tasks/${find("this").value}`);
  const { tasks, accuracy_matrix: matrix } = version;
  const cell = (share) => {
    const made = make("td", { textContent: of100(share) });
    if (share === null || share === undefined) return made;
    const colour = [232, 241, 251].map((light, part) => Math.round(light + share * ([11, 92, 173][part] - light)));
    made.style.background = `rgb(${colour.join(" ")})`;
    made.style.color = brightness(colour) < 0.179 ? "#fff" : "#000";  // either way a contrast of 4.5 and more (WCAG 2)
    return made;
  };
  find("matrix").replaceChildren(
    make("thead", {}, make("tr", {}, make("td"), ...tasks.map((task) => make("th", { scope: "col", title: task.classes.join(", "), textContent: task.name })))),
    make("tbody", {}, ...matrix.map((row, at) => make("tr", {}, make("th", { scope: "row", textContent: say("steps.after", { n: at + 1 }) }),
      ...tasks.map((_, task) => cell(row[task]))))));
}
export function startVersions(whenChanged) {
  changed = whenChanged;
  for (const id of ["this", "with"]) find(id).onchange = () => attempt(compare);
  find("steps").ontoggle = () => { if (find("steps").open) attempt(steps); };
  find("back").onclick = () => serve(all.back, "/tasks/rollback");
}
