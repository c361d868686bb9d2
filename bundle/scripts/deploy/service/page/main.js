// The page: its parts, who sits before it, and what it shows first.

import { attempt, find, form, json, make, may, state } from "./tools.js";
import { showClasses } from "./classes.js";
import { sayAgain, showImages, showNames, startImages } from "./images.js";
import { sayTraining, showChecks, showLearning, startLearning, watch } from "./learning.js";
import { loadVersions, showVersions, startVersions } from "./versions.js";
import { keysOf, say, speak } from "./words.js";

const VIEWS = { images: showImages, classes: showClasses, learning: showLearning, versions: async () => { await loadVersions(); showVersions(); }, help: showHelp };
const THEME = "theme";
const view = () => (VIEWS[location.hash.slice(1)] ? location.hash.slice(1) : "images");

async function showService() {
  const [info, user] = await Promise.all([json("GET", "/info/"), json("GET", "/auth/user")]);
  const [name, model] = Object.entries(info.models)[0];
  Object.assign(state, { model: name, version: model.version, classes: info.labels, volumes: model.dimension === 3, user });
  for (const part of ["quick", "label-form"]) find(part).hidden = !may("labeller");
  showServed();
}
function showServed() {
  const parts = { version: state.version, count: state.classes.length, name: state.user.name };
  find("served").textContent = say(sessionStorage.getItem("token") ? "served.user" : "served", parts);
}
function showHelp() {
  const pairs = (start) => keysOf(start).filter((key) => !key.endsWith(".is"))
    .flatMap((key) => [make("dt", { textContent: say(key) }), make("dd", { textContent: say(`${key}.is`) })]);
  find("glossary").replaceChildren(...pairs("word."));
  find("keys").replaceChildren(...pairs("key."));
}
async function showView() {
  for (const name of Object.keys(VIEWS)) find(name).hidden = name !== view();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view()}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  await attempt(VIEWS[view()]);
}
/** Another version answers, or classes are known that were not. */
async function changed() {
  await showService();
  showChecks((await loadVersions()).gate);
  await Promise.all([showNames(), showLearning()]);
  showVersions();
}
async function start() {
  await attempt(async () => {
    await showService();
    await showView();
    showChecks((await loadVersions()).gate);
    await watch();
    sayTraining();
  });
}
function showTheme(theme) {
  document.documentElement.style.colorScheme = theme;
  find("theme").value = theme;
}

await speak();
showTheme(localStorage.getItem(THEME) ?? "light dark");
startImages();
startLearning(() => attempt(changed));
startVersions(changed);
addEventListener("hashchange", showView);
find("theme").onchange = (event) => { localStorage.setItem(THEME, event.target.value); showTheme(event.target.value); };
find("language").onchange = (event) => attempt(async () => {
  await speak(event.target.value);
  showServed();
  sayAgain();
  showChecks((await loadVersions()).gate);
  sayTraining();
  await showView();
});
find("sign-in").onsubmit = (event) => {
  event.preventDefault();
  attempt(async () => {
    const given = form({ username: find("name").value, password: find("password").value });
    find("password").value = "";
    sessionStorage.setItem("token", (await json("POST", "/auth/token", given)).access_token);
    find("access").hidden = true;
    await start();
  });
};
await start();
