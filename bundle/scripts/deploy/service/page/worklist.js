// The list of images that are kept: only the rows in sight are in the page, and pages of it are asked for as they come.

import { afterwards, ask, attempt, find, intoSight, json, make, person } from "./tools.js";
import { say } from "./words.js";

const HEIGHT = 64, PAGE = 100, MOST_PICTURES = 600, SPARE = 4;
const POLL = 1500;  // milliseconds between looks at how many images the model was asked about
const pages = new Map();  // number of the page -> its items, or a promise of them
const pictures = new Map();  // image -> address of its thumbnail
const list = { found: 0, about: null, current: -1, label: null, epoch: 0, chosen: () => {} };

export const onChosen = (work) => { list.chosen = work; };
export const position = () => list.current;
export const itemAt = (index) => { const page = pages.get(Math.floor(index / PAGE)); return Array.isArray(page) ? page[index % PAGE] : undefined; };
export const counts = () => list.about;

function query(page) {
  const parts = { order: find("order").value, show: find("show").value, search: find("search").value.trim(), offset: page * PAGE, limit: PAGE };
  if (list.label !== null) parts.label = list.label;
  return `/datastore/worklist?${new URLSearchParams(parts)}`;
}
/** Return a page of the list, asked for once. */
function need(number) {
  if (!pages.has(number)) {
    const epoch = list.epoch;
    pages.set(number, json("GET", query(number)).then((found) => {
      if (epoch !== list.epoch) return [];
      pages.set(number, found.items);
      list.found = found.found;
      list.about = found;
      return found.items;
    }, (error) => { pages.delete(number); throw error; }));
  }
  return pages.get(number);
}
/** Ask anew; the row stays where it is, or goes to an image that is looked for nearby. */
export async function reload(near = Math.max(list.current, 0), image = null) {
  list.epoch += 1;
  pages.clear();
  await need(Math.floor(near / PAGE)).then?.(() => {});
  if (list.found && near >= list.found) near = list.found - 1;
  const items = await need(Math.floor(Math.max(near, 0) / PAGE));
  const at = image === null ? -1 : items.findIndex((item) => item.image === image);
  if (at >= 0) near = Math.floor(near / PAGE) * PAGE + at;
  showCounts();
  render();
  return near;
}
/** While the model is asked about the images, say how far that is; once it is done, put them in order. */
const lookAgain = afterwards(POLL, async () => {
  try {
    const epoch = list.epoch, found = await json("GET", `${query(0)}&limit=1`.replace(`&limit=${PAGE}`, ""));
    if (epoch !== list.epoch) return;
    list.about = found;
    const image = itemAt(list.current)?.image ?? null;
    if (found.total - found.labelled > found.asked) { showCounts(); return; }
    const at = await reload(Math.max(list.current, 0), image);
    if (list.current >= 0 && itemAt(at)?.image === image) list.current = at;
    render();
  } catch { /* the next request says what is wrong */ }
});
function showCounts() {
  const { labelled, total, asked } = list.about;
  if (total - labelled > asked) lookAgain();
  const left = total - labelled - asked;
  find("progress-text").textContent = say(left ? "list.asking" : "list.progress", { labelled, total, left });
  Object.assign(find("done"), { max: Math.max(total, 1), value: labelled });
  find("only").hidden = list.label === null;
  find("only").replaceChildren(say("list.only", { label: list.label }), " ", make("button", {
    type: "button", className: "small", textContent: say("list.everything"), onclick: () => filterBy(null, "waiting") }));
}
/** Show the images of a class, or all. */
export async function filterBy(label, show = "labelled") {
  list.label = label;
  find("show").value = show;
  await start();
}
async function start() {
  list.current = -1;
  find("rows").scrollTop = 0;
  await attempt(() => reload(0));
}

/** Return how much an image is in doubt, in words, and with what mark. */
export function doubtOf(item) {
  if (item.predicted === null) return [say("list.unasked"), ""];
  if (item.why) return [say(`doubt.${item.why}`), "bad"];
  return [say(`doubt.${item.doubt > 0.7 ? "high" : item.doubt > 0.3 ? "some" : "low"}`), ""];
}
function rowOf(item, index) {
  const image = make("img", { alt: "" });
  const [doubt, mark] = doubtOf(item);
  const suggested = item.predicted && item.why !== "outlier" ? say("list.suggested", { label: item.predicted }) : doubt;
  const title = make("b", { textContent: item.label ?? suggested, className: item.label ? "good" : mark });
  const name = item.image.slice(0, 8);
  const text = item.label ? say("list.by", { by: person(item.by), name }) : suggested === doubt ? name : `${doubt} · ${name}`;
  const row = make("div", { id: `row-${index}`, className: "item", role: "option" }, image,
    make("div", {}, title, make("span", { textContent: text })));
  row.setAttribute("aria-setsize", list.found);
  row.setAttribute("aria-posinset", index + 1);
  row.setAttribute("aria-selected", index === list.current);
  row.style.top = `${index * HEIGHT}px`;
  row.dataset.image = item.image;
  row.onclick = () => { find("rows").focus({ preventScroll: true }); goTo(index); };
  thumbnail(item.image).then((address) => { if (address) image.src = address; });
  return row;
}
async function thumbnail(image) {
  if (!pictures.has(image)) {
    pictures.set(image, ask("GET", `/pixels/thumbnail?image=${image}`).then(async (answer) => URL.createObjectURL(await answer.blob()), () => null));
    if (pictures.size > MOST_PICTURES) {
      const [oldest, address] = pictures.entries().next().value;
      pictures.delete(oldest);
      address.then((one) => { if (one) URL.revokeObjectURL(one); });
    }
  }
  return pictures.get(image);
}
function render() {
  const box = find("rows"), space = find("space");
  space.style.height = `${Math.max(list.found, 1) * HEIGHT}px`;
  if (!list.found) { space.replaceChildren(make("p", { className: "soft", role: "option", textContent: say("list.none") })); return; }
  const first = Math.max(0, Math.floor(box.scrollTop / HEIGHT) - SPARE);
  const last = Math.min(list.found - 1, Math.ceil((box.scrollTop + box.clientHeight) / HEIGHT) + SPARE);
  const rows = [];
  for (let index = first; index <= last; index++) {
    const item = itemAt(index);
    if (item) rows.push(rowOf(item, index));
    else Promise.resolve(need(Math.floor(index / PAGE))).then(later, () => {});
  }
  space.replaceChildren(...rows);
  box.setAttribute("aria-activedescendant", rows.some((row) => row.id === `row-${list.current}`) ? `row-${list.current}` : "");
}
const later = afterwards(30, render);

/** Go to a row, and show its image. */
export async function goTo(index) {
  if (!list.found) { list.current = -1; return false; }
  index = Math.min(list.found - 1, Math.max(0, index));
  const items = await need(Math.floor(index / PAGE));
  const item = items[index % PAGE];
  if (!item) return false;
  list.current = index;
  intoSight(find("rows"), index * HEIGHT, HEIGHT);
  render();
  list.chosen(item);
  return true;
}
/** Let no row be the one that is shown. */
export function leave() {
  list.current = -1;
  render();
}
export function startWorklist() {
  find("rows").addEventListener("scroll", () => requestAnimationFrame(render), { passive: true });
  new ResizeObserver(render).observe(find("rows"));
  for (const id of ["show", "order"]) find(id).onchange = start;
  find("search").oninput = afterwards(250, start);
}
