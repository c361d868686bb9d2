// One image on a canvas: window, zoom, pan, slices, inversion, and what spoke for the suggestion over it.

import { find, make } from "./tools.js";
import { say } from "./words.js";

const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];  // viridis
const OPACITY = 0.65;
const PRESETS = { brain: [40, 80], soft: [40, 400], lung: [-600, 1500], bone: [400, 1800] };
const STEP = 1.25;

const view = { data: null, slice: 0, level: 128, width: 256, inverted: false, zoom: 1, x: 0, y: 0, heat: null, heatShown: false };
const picture = document.createElement("canvas");
const overlay = document.createElement("canvas");
const told = { slice: () => {}, heat: () => {} };
let waiting = 0;

/** Return what an answer of /pixels/ holds. */
export async function pixelsIn(answer) {
  const about = JSON.parse(answer.headers.get("X-Pixels"));
  const buffer = await answer.arrayBuffer();
  const [count, rows, columns, channels = 1] = about.shape;
  return { ...about, count, rows, columns, channels, values: about.bits === 16 ? new Uint16Array(buffer) : new Uint8Array(buffer) };
}

/** Show an image, or nothing, and why. */
export function showPixels(data, why = say("viewer.empty")) {
  Object.assign(view, { data, heat: null });
  find("empty").hidden = Boolean(data);
  find("empty").textContent = why;
  find("slice-box").hidden = !data || data.count < 2;
  if (data) {
    view.slice = Math.floor(data.count / 2);
    Object.assign(find("slice"), { max: data.count - 1, value: view.slice });
    const span = data.step * (data.bits === 16 ? 65535 : 255);
    view.highest = data.highest ??= data.lowest + data.step * highestOf(data.values);
    const least = Math.min(data.lowest, data.black), most = Math.max(view.highest, data.white);
    Object.assign(find("level"), { min: least, max: most });
    Object.assign(find("width"), { min: data.step, max: Math.max(most - least, data.step, Math.min(span, data.step)) });
    namePresets();
    reset();
  }
  draw();
}
function namePresets() {
  find("preset").replaceChildren(...["first", "all", ...(view.data.hounsfield ? Object.keys(PRESETS) : []), "own"].map((name) =>
    make("option", { value: name, textContent: say(`viewer.preset.${name}`) })));
}
/** Show anew what is in words of the language. */
export function sayViewer() {
  if (!view.data) return;
  const { value } = find("preset");
  namePresets();
  find("preset").value = value;
  draw();
}
function highestOf(values) {
  let most = 0;
  for (const value of values) if (value > most) most = value;
  return most;
}

/** Show what spoke for the suggestion: a map for the slice that is shown, or one for each; or nothing. */
export function showHeat(maps) {
  Object.assign(view, { heat: maps, heatSlice: view.slice });
  draw();
}
/** Return which of the maps is of the slice that is shown; -1 where none is. */
function mapShown() {
  const { data, heat, heatShown, heatSlice, slice } = view;
  if (!data || !heat || !heatShown) return -1;
  if (heat.count > 1) return Math.floor((slice + 0.5) * heat.count / data.count);
  return slice === heatSlice ? 0 : -1;
}
function paintHeat({ rows, columns, values }, map) {
  Object.assign(overlay, { width: columns, height: rows });
  const context = overlay.getContext("2d"), pixels = context.createImageData(columns, rows);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const heat = values[map * rows * columns + at / 4] / 255, place = heat * (STOPS.length - 1);
    const from = Math.min(Math.floor(place), STOPS.length - 2);
    for (let part = 0; part < 3; part++) {
      pixels.data[at + part] = STOPS[from][part] + (place - from) * (STOPS[from + 1][part] - STOPS[from][part]);
    }
    pixels.data[at + 3] = 255 * OPACITY * heat;
  }
  context.putImageData(pixels, 0, 0);
}
export const shownSlice = () => view.slice;
export const sliceCount = () => view.data?.count ?? 0;
export const onSlice = (work) => { told.slice = work; };
export const onHeat = (work) => { told.heat = work; };
export const heatIsOn = () => view.heatShown;

/** Return an image small, as an address for a list. */
export function thumbnailOf(data) {
  const small = document.createElement("canvas"), whole = document.createElement("canvas");
  paint(whole, data, Math.floor(data.count / 2), data.black, data.white, data.inverted);
  const rows = data.rows * data.aspect, scale = 96 / Math.max(rows, data.columns);
  Object.assign(small, { width: Math.max(1, data.columns * scale), height: Math.max(1, rows * scale) });
  small.getContext("2d").drawImage(whole, 0, 0, small.width, small.height);
  return small.toDataURL("image/jpeg", 0.8);
}

/** Paint a slice pixel by pixel, through a table from values to grey. */
function paint(canvas, data, slice, black, white, inverted) {
  const { rows, columns, channels, values, lowest, step } = data;
  const table = new Uint8ClampedArray(data.bits === 16 ? 65536 : 256), span = Math.max(white - black, 1e-9);
  for (let at = 0; at < table.length; at++) {
    const grey = 255 * (lowest + step * at - black) / span;
    table[at] = inverted ? 255 - Math.min(255, Math.max(0, grey)) : grey;
  }
  Object.assign(canvas, { width: columns, height: rows });
  const context = canvas.getContext("2d"), pixels = context.createImageData(columns, rows);
  let from = slice * rows * columns * channels;
  for (let at = 0; at < pixels.data.length; at += 4) {
    for (let part = 0; part < 3; part++) pixels.data[at + part] = table[values[channels === 3 ? from + part : from]];
    pixels.data[at + 3] = 255;
    from += channels;
  }
  context.putImageData(pixels, 0, 0);
}
function draw() {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => {
    const canvas = find("canvas"), { data } = view, scale = devicePixelRatio || 1;
    Object.assign(canvas, { width: canvas.clientWidth * scale, height: canvas.clientHeight * scale });
    const map = mapShown();
    find("legend").hidden = map < 0;
    find("reading").textContent = data ? say("viewer.reading", { level: short(view.level), width: short(view.width),
      zoom: view.zoom.toFixed(1) }) : "";
    if (!data || !canvas.width) return;
    paint(picture, data, view.slice, view.level - view.width / 2, view.level + view.width / 2, view.inverted);
    find("slice-text").textContent = say("viewer.slice", { number: view.slice + 1, count: data.count });
    const tall = data.rows * data.aspect, fit = Math.min(canvas.width / data.columns, canvas.height / tall) * view.zoom;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = fit < 3;
    context.imageSmoothingQuality = "high";
    const left = (canvas.width - data.columns * fit) / 2 + view.x * scale, top = (canvas.height - tall * fit) / 2 + view.y * scale;
    context.drawImage(picture, left, top, data.columns * fit, tall * fit);
    if (map >= 0) {
      paintHeat(view.heat, map);
      context.imageSmoothingEnabled = true;
      context.drawImage(overlay, left, top, data.columns * fit, tall * fit);
    }
    Object.assign(find("level"), { value: view.level });
    Object.assign(find("width"), { value: view.width });
  });
}
const short = (value) => (Math.abs(value) >= 10 ? String(Math.round(value)) : value.toPrecision(2));

export function reset() {
  Object.assign(view, { zoom: 1, x: 0, y: 0 });
  find("preset").value = "first";
  setInverted(view.data?.inverted ?? false);
  usePreset("first");
}
function setInverted(inverted) {
  view.inverted = inverted;
  find("invert").setAttribute("aria-pressed", inverted !== (view.data?.inverted ?? false));
  draw();
}
function usePreset(name) {
  const { data } = view;
  if (!data || name === "own") return;
  const ends = { first: [data.black, data.white], all: [data.lowest, view.highest] }[name];
  const [level, width] = ends ? [(ends[0] + ends[1]) / 2, ends[1] - ends[0]] : PRESETS[name];
  setWindow(level, width, name);
}
function setWindow(level, width, preset = "own") {
  Object.assign(view, { level, width: Math.max(width, view.data?.step ?? 1) });
  find("preset").value = preset;
  draw();
}
function zoom(factor) {
  const before = view.zoom;
  view.zoom = Math.min(40, Math.max(0.2, view.zoom * factor));
  Object.assign(view, { x: view.x * view.zoom / before, y: view.y * view.zoom / before });
  draw();
}
function pan(x, y) {
  Object.assign(view, { x: view.x + x, y: view.y + y });
  draw();
}
function toSlice(number) {
  const { data } = view;
  if (!data || data.count < 2) return;
  const slice = Math.min(data.count - 1, Math.max(0, number));
  if (slice === view.slice) return;
  view.slice = slice;
  find("slice").value = slice;
  draw();
  told.slice();
}
function toggleHeat() {
  view.heatShown = !view.heatShown;
  find("heat").setAttribute("aria-checked", view.heatShown);
  draw();
  told.heat();
}

/** Do what a key says; return whether it was one of the viewer's. */
export function viewerKey(event) {
  const keys = {
    i: () => setInverted(!view.inverted), r: reset, h: toggleHeat, "+": () => zoom(STEP), "=": () => zoom(STEP), "-": () => zoom(1 / STEP),
    "[": () => toSlice(view.slice - 1), "]": () => toSlice(view.slice + 1),
    PageUp: () => toSlice(view.slice - 1), PageDown: () => toSlice(view.slice + 1),
  };
  const moves = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
  if (event.shiftKey && moves[event.key]) pan(...moves[event.key]);
  else if (keys[event.key]) keys[event.key]();
  else return false;
  return true;
}

export function startViewer() {
  const stage = find("stage");
  find("level").oninput = () => setWindow(find("level").valueAsNumber, view.width);
  find("width").oninput = () => setWindow(view.level, find("width").valueAsNumber);
  find("preset").onchange = () => usePreset(find("preset").value);
  find("invert").onclick = () => setInverted(!view.inverted);
  find("larger").onclick = () => zoom(STEP);
  find("smaller").onclick = () => zoom(1 / STEP);
  find("reset").onclick = reset;
  find("heat").onclick = toggleHeat;
  find("slice").oninput = () => toSlice(find("slice").valueAsNumber);
  stage.onpointerdown = (event) => stage.setPointerCapture(event.pointerId);
  stage.onpointermove = (event) => {
    if (!event.buttons || !view.data) return;
    if (event.shiftKey || event.buttons & 6) { pan(event.movementX, event.movementY); return; }
    const speed = Math.max(view.width, (view.highest - view.data.lowest) / 20) / 400;
    setWindow(view.level + event.movementY * speed, view.width + event.movementX * speed);
  };
  stage.oncontextmenu = (event) => event.preventDefault();
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (sliceCount() > 1 && !event.ctrlKey) toSlice(view.slice + Math.sign(event.deltaY));
    else zoom(event.deltaY < 0 ? STEP : 1 / STEP);
  }, { passive: false });
  new ResizeObserver(draw).observe(stage);
}
