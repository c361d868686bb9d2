// Reading: an image, what the model suggests, its label, and on to the next one.

import { afterwards, ask, attempt, breakable, choose, find, form, intoSight, json, make, may, person, state } from "./tools.js";
import { heatIsOn, onHeat, onSlice, pixelsIn, sayViewer, showHeat, showPixels, shownSlice, startViewer, thumbnailOf,
  viewerKey } from "./viewer.js";
import { of100, say, time } from "./words.js";
import { counts, goTo, itemAt, leave, onChosen, position, reload, startWorklist } from "./worklist.js";

const QUICK = 9, FIRST_BARS = 6;
const DRAWN = /^image\/(png|jpeg|webp|bmp|gif)$/;  // kinds of files that the browser draws by itself
const undone = [];  // changes of labels that can be undone: {change, item}
let opened = [];  // files that were dropped: {file, name, image (once it is kept), label, pixels}
let current = null;
let seen = null;  // the one that is on the canvas: no other is labelled
let showing = 0;  // counts the images that were shown, so that a late answer of another one is dropped
let names = [];  // all classes, known or given
let quick = [];

/* One image */
const isOpened = (item) => Boolean(item.file);
const address = (item) => (item.image ? `image=${item.image}` : "");
/** Return what tells the service which image, and which slice of it, is meant. */
function sent(item) {
  if (item.image) return undefined;
  return form({ file: item.file, params: JSON.stringify(which(item)) });
}
const which = (item) => (item.pixels?.count > 1 && !state.volumes ? { picture: shownSlice() } : {});

async function show(item) {
  const number = ++showing;
  current = item;
  find("unlike").hidden = true;
  find("bars-table").hidden = true;
  find("verdict").textContent = say("answer.waiting");
  showItem();
  const drawn = draw(item, number);
  if (isOpened(item) && !item.image) await drawn;  // which slice is meant is known then
  await judge(item, number);
  await drawn;
}
async function draw(item, number) {
  try {
    const pixels = item.pixels ?? await pixelsIn(await (item.image ? ask("GET", `/pixels/?${address(item)}`)
      : ask("POST", "/pixels/", form({ file: item.file }))));
    if (isOpened(item)) item.pixels = pixels;
    if (number === showing) { seen = item; showPixels(pixels); }
    if (isOpened(item) && !item.thumbnail) { item.thumbnail = thumbnailOf(pixels); showOpened(); }
  } catch (error) {
    if (number !== showing) return;
    showPixels(null, error.message);  // never another image than the one that is meant
  }
}
async function judge(item, number = showing) {
  showHeat(null);
  try {
    const said = await json("POST", `/infer/${encodeURIComponent(state.model)}?${address(item)}`, sent(item));
    if (number !== showing) return;
    item.said = said;
    showAnswer(said);
    if (heatIsOn()) await heat();
  } catch (error) {
    if (number !== showing) return;
    find("verdict").replaceChildren(make("b", { textContent: say("answer.unreadable") }),
      make("span", { className: "soft", textContent: error.message }));
  }
}
async function heat() {
  if (!current?.said || current.said.indeterminate || !heatIsOn()) return;
  const number = showing, slice = state.volumes ? null : shownSlice();
  await attempt(async () => {
    const answer = await ask("POST", `/infer/${encodeURIComponent(state.model)}?output=heat&${address(current)}`, sent(current));
    const maps = await pixelsIn(answer);
    if (number !== showing || (slice !== null && slice !== shownSlice())) return;  // another slice is asked about by itself
    find("legend-most").textContent = say("legend.most", { label: current.said.predicted_class });
    showHeat(maps);
  });
}
function showAnswer(said) {
  const label = said.predicted_class, percent = of100(said.probabilities[label]);
  const parts = [make("b", { textContent: said.doubt ? say(`answer.${said.doubt}`) : said.findings ? label : say("answer.likely", { label, percent }) })];
  if (said.doubt) parts.push(make("span", { className: "soft", textContent: say(`answer.${said.doubt}.do`, { label }) }));
  find("verdict").replaceChildren(...parts);
  find("unlike").hidden = said.doubt !== "outlier";
  find("unlike").textContent = say("answer.outlier");
  const sorted = [...said.prediction].sort((one, other) => other.score - one.score).slice(0, FIRST_BARS);
  find("bars-table").hidden = said.doubt === "outlier";
  find("bars").replaceChildren(...sorted.map(({ label: name, score }) => {
    const bar = make("i");
    bar.style.width = `${100 * score}%`;
    return make("tr", {}, make("th", { scope: "row" }, breakable(name)), make("td", { className: "bar" }, make("div", {}, bar)),
      make("td", { className: "number", textContent: `${of100(score)} %` }));
  }));
}
function showItem() {
  find("group-box").hidden = !current || !isOpened(current) || Boolean(current.image);
  find("unlabel").hidden = !current?.label || !may("admin");
  showOpened();
  showHistory();
}
async function showHistory() {
  const item = current, box = find("past");
  box.hidden = true;
  if (!item?.image) return;
  const entries = await attempt(() => json("GET", `/datastore/label/history?image=${item.image}`)) ?? [];
  if (item !== current || !entries.length) return;
  box.hidden = false;
  find("history").replaceChildren(...entries.map(({ label, by, ts, undoes }) => make("li", {
    textContent: say(undoes ? "history.undone" : label === null ? "history.removed" : "history.entry",
      { label: label ?? say("history.none"), by: person(by), time: time(ts) }) })));
}

/* Files that were opened */
function open(files) {
  if (!files.length) return;
  location.hash = "#images";
  opened = [...files].map((file) => ({ file, name: file.name, thumbnail: DRAWN.test(file.type) ? URL.createObjectURL(file) : "" }));
  leave();
  show(opened[0]);
}
function showOpened() {
  find("opened-box").hidden = !opened.length;
  find("opened-title").textContent = say("opened.title", { n: opened.length });
  find("keep").hidden = !may("labeller") || opened.every((item) => item.image);
  const waiting = opened.filter((item) => !item.label).length;
  find("label-all").hidden = opened.length < 2 || !waiting || !may("labeller");
  find("label-all").textContent = say("label.all", { n: waiting });
  find("opened").replaceChildren(...opened.map((item, at) => {
    const image = make("img", { alt: "" });
    if (item.thumbnail) image.src = item.thumbnail;
    const row = make("li", { id: `opened-${at}`, className: "item", role: "option" }, image, make("div", {},
      make("b", { textContent: item.name }), make("span", { className: item.label ? "good" : "", textContent: item.label ?? "" })));
    row.setAttribute("aria-selected", item === current);
    row.onclick = () => { leave(); show(item); };
    return row;
  }));
  const at = opened.indexOf(current);
  find("opened").setAttribute("aria-activedescendant", at < 0 ? "" : `opened-${at}`);
  const row = find(`opened-${at}`);
  if (row) intoSight(find("opened"), row.offsetTop - find("opened").offsetTop, row.offsetHeight);
}
async function keep(item) {
  if (item.image) return;
  const group = find("group").value.trim();
  const params = JSON.stringify({ ...which(item), ...(group ? { group } : {}) });
  item.image = (await json("PUT", "/datastore/image", form({ file: item.file, params }))).image;
}
async function keepAll() {
  await attempt(async () => {
    for (const item of opened) await keep(item);
    find("said").textContent = say("opened.kept", { n: opened.length });
    opened = [];
    await reload(0);
    if (!await goTo(0)) clear();
    showItem();
  });
}
function closeOpened() {
  opened = [];
  goTo(0).then((shown) => { if (!shown) clear(); });
}
function clear() {
  showing += 1;
  current = seen = null;
  showPixels(null);
  find("verdict").textContent = say("answer.none");
  find("bars-table").hidden = true;
  find("unlike").hidden = true;
  showItem();
}

/* Labels */
/** Return the name that is meant, once a person has said that a new one is. */
async function meant(name) {
  if (state.classes.includes(name)) return name;
  const about = await json("GET", `/datastore/labels/near?${new URLSearchParams({ name })}`);
  if (about.known || about.given) return name;
  const fresh = [name, say("label.new.yes", { label: name })];
  if (!about.near.length) return choose(say("label.new.ask", { label: name }), [fresh]);
  return choose(say("label.near.ask", { label: name }), [...about.near.map((other) => [other, other]), fresh]);
}
async function label(given, items) {
  if (!items.length || (items.length === 1 && items[0] !== seen)) return;
  await attempt(async () => {
    const name = await meant(given);
    if (!name) return;
    const next = itemAt(position() + 1)?.image ?? null;
    for (const [at, item] of items.entries()) {
      if (items.length > 1) find("said").textContent = say("label.doing", { at: at + 1, n: items.length });
      await keep(item);
    }
    const { change } = await json("POST", "/datastore/labels", { images: items.map((item) => item.image), label: name });
    undone.push({ change, item: items[0] });
    for (const item of items) item.label = name;
    find("undo").disabled = false;
    find("class").value = "";
    if (document.activeElement === find("class")) find("stage").focus({ preventScroll: true });  // so that keys mean classes again
    find("said").textContent = items.length > 1 ? say("label.done.many", { n: items.length, label: name }) : say("label.done", { label: name });
    if (!names.includes(name)) await showNames();
    await onward(items.at(-1), next);
  });
}
/** Go on to the next image without a label. */
async function onward(item, next) {
  const waiting = opened.find((other) => !other.label);
  if (isOpened(item) && waiting) { await reload(); show(waiting); return; }
  const wasInList = position() >= 0;
  if (isOpened(item)) { await reload(); showItem(); if (item === current) show(item); return; }
  const from = wasInList ? position() : 0;
  const found = await reload(from + (find("show").value === "waiting" ? 0 : 1), next);
  if (!await goTo(found)) { find("said").textContent += ` ${say("label.nothing")}`; clear(); }
}
async function undo() {
  const last = undone.pop();
  find("undo").disabled = !undone.length;
  if (!last) return;
  await attempt(async () => {
    const { images } = await json("POST", `/datastore/labels/undo?change=${last.change}`);
    find("said").textContent = say("label.undone", { n: images });
    for (const item of opened) if (item === last.item) item.label = undefined;
    const found = await reload(0, last.item.image);
    if (isOpened(last.item)) { show(last.item); return; }
    if (itemAt(found)?.image === last.item.image) { await goTo(found); return; }
    leave();
    show({ image: last.item.image });
  });
}
async function removeLabel() {
  await attempt(async () => {
    const { change } = await json("POST", "/datastore/labels", { images: [current.image], label: null });
    undone.push({ change, item: current });
    find("undo").disabled = false;
    current.label = undefined;
    find("said").textContent = say("label.removed");
    await reload();
    showItem();
  });
}
/** Remember a change that was made elsewhere, so that it can be undone here. */
export function remember(change) {
  undone.push({ change, item: current ?? {} });
  find("undo").disabled = false;
}

/* Classes by key */
export async function showNames() {
  const given = await json("GET", "/datastore/labels");
  const images = Object.fromEntries(given.map((one) => [one.label, one.images]));
  names = [...state.classes, ...given.map((one) => one.label).filter((name) => !state.classes.includes(name))];
  const wanted = names.length <= QUICK ? names : [...names].sort((one, other) => (images[other] ?? 0) - (images[one] ?? 0)).slice(0, QUICK);
  quick = [...quick.filter((name) => wanted.includes(name)), ...wanted.filter((name) => !quick.includes(name))];  // a key stays what it was
  find("names").replaceChildren(...names.map((value) => make("option", { value })));
  find("quick").replaceChildren(...quick.map((name, at) => make("button", { type: "button", onclick: () => label(name, [current]) },
    make("kbd", { textContent: at + 1 }), breakable(name))));
}

function step(by) {
  const at = opened.indexOf(current);
  if (at >= 0 && opened[at + by]) { show(opened[at + by]); return; }
  if (at >= 0 && by < 0) return;
  goTo(at >= 0 ? 0 : position() + by);
}
function key(event) {
  const typing = event.target.matches("input:not([type=range]), select, textarea") || find("dialog").open;
  if (typing || event.altKey || event.metaKey || find("images").hidden) return;
  if (event.ctrlKey && event.key !== "z") return;
  const range = event.target.matches("input[type=range]") && /^(Arrow|Page|Home|End)/.test(event.key);
  if (range) return;
  const own = { ArrowDown: () => step(1), ArrowUp: () => step(-1), u: undo, z: event.ctrlKey ? undo : null, "/": () => find("class").focus() };
  const lower = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const number = "123456789".indexOf(event.key);
  if (viewerKey({ key: lower, shiftKey: event.shiftKey })) event.preventDefault();
  else if (!event.ctrlKey && number >= 0 && quick[number] && current && may("labeller")) label(quick[number], [current]);
  else if (!event.shiftKey && own[lower]) { event.preventDefault(); own[lower](); }
}

export async function showImages() {
  await showNames();
  await reload();
  if (!current && counts().found) await goTo(0);
  if (!current) clear();
}
/** Show anew what is in words of the language. */
export function sayAgain() {
  find("said").textContent = "";
  sayViewer();
  if (!current) clear();
  else if (current.said) { showAnswer(current.said); heat(); showItem(); }
  else show(current);
}
export function startImages() {
  startViewer();
  startWorklist();
  onChosen((item) => show(item));
  onHeat(heat);
  onSlice(afterwards(350, () => { if (current && !state.volumes && isOpened(current) && !current.image) judge(current); }));
  for (const name of ["dragenter", "dragover"]) addEventListener(name, (event) => { event.preventDefault(); find("drop").classList.add("over"); });
  for (const name of ["dragleave", "drop"]) addEventListener(name, () => find("drop").classList.remove("over"));
  addEventListener("drop", (event) => { event.preventDefault(); open(event.dataTransfer.files); });
  addEventListener("keydown", key);
  find("file").onchange = (event) => { open(event.target.files); event.target.value = ""; };
  find("keep").onclick = keepAll;
  find("close").onclick = closeOpened;
  find("undo").onclick = undo;
  find("unlabel").onclick = removeLabel;
  find("label-form").onsubmit = (event) => { event.preventDefault(); label(find("class").value.trim(), [current]); };
  find("label-all").onclick = async () => {
    if (!find("label-form").reportValidity()) return;
    const name = find("class").value.trim(), items = opened.filter((item) => !item.label);
    const sure = await choose(say("label.all.ask", { n: items.length, label: name }), [["yes", say("label.all.yes", { n: items.length })]]);
    if (sure) await label(name, items);
  };
}
