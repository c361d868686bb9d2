// The labels given so far: by whom, and how they are renamed, moved and removed.

import { attempt, choose, find, json, make, may, person } from "./tools.js";
import { remember, showNames } from "./images.js";
import { say, time } from "./words.js";
import { filterBy, reload } from "./worklist.js";

export async function showClasses() {
  const given = await json("GET", "/datastore/labels");
  find("class-rows").replaceChildren(...given.map(row));
  if (!given.length) find("class-rows").append(make("tr", {}, make("td", { colSpan: 7, className: "soft", textContent: say("classes.none") })));
}
function row(one) {
  const status = one.known ? ["", say("classes.known")] : one.missing ? ["", say("classes.missing", { n: one.missing })] : ["new", say("classes.ready")];
  const who = Object.entries(one.by).map(([name, count]) => `${person(name)} (${count})`).join(", ");
  const actions = [["classes.show", () => { location.hash = "#images"; filterBy(one.label); }]];
  if (may("admin")) actions.push(["classes.rename", () => rename(one)], ["classes.remove", () => remove(one)]);
  const buttons = actions.map(([word, onclick]) => {
    const button = make("button", { type: "button", className: "small", textContent: say(word), onclick });
    button.ariaLabel = `${say(word)}: ${one.label}`;
    return button;
  });
  return make("tr", {}, make("th", { scope: "row", textContent: one.label }), make("td", { className: "number", textContent: one.images }),
    make("td", { className: "number", textContent: one.patients }), make("td", { textContent: who }),
    make("td", { textContent: time(one.last) }), make("td", { className: status[0], textContent: status[1] }),
    make("td", {}, make("div", { className: "actions" }, ...buttons)));
}
async function rename(one) {
  const name = await choose(say("classes.rename.ask", { label: one.label, n: one.images }), [["yes", say("classes.rename")]],
    { name: say("classes.rename.name"), value: one.label });
  if (!name || name === one.label) return;
  await attempt(async () => {
    const about = await json("GET", `/datastore/labels/near?${new URLSearchParams({ name })}`);
    const parts = { name, label: one.label, n: one.images };
    if ((about.known || about.given) && !await choose(say("classes.merge.ask", parts), [["yes", say("classes.merge.yes")]])) return;
    await done(await json("POST", "/datastore/labels/rename", { label: one.label, name }));
  });
}
async function remove(one) {
  const parts = { label: one.label, n: one.images };
  if (!await choose(say("classes.remove.ask", parts), [["yes", say("classes.remove.yes", parts)]])) return;
  await attempt(async () => {
    const images = [];
    for (let offset = 0; offset < one.images; offset += 500) {
      const page = await json("GET", `/datastore/worklist?${new URLSearchParams({ show: "labelled", order: "oldest", label: one.label, limit: 500, offset })}`);
      images.push(...page.items.map((item) => item.image));
    }
    await done(await json("POST", "/datastore/labels", { images, label: null }));
  });
}
async function done({ change, images }) {
  remember(change);
  find("problem").textContent = "";
  find("said").textContent = say("classes.changed", { n: images });
  await Promise.all([showClasses(), showNames(), reload()]);
}
