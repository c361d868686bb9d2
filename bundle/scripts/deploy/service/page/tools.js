// What all parts of the page share: elements, questions to the service, and questions to the person.

import { has, say } from "./words.js";

export const find = (id) => document.getElementById(id);

/** Return a new element. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Return a class's name as text that may break behind a slash. */
export const breakable = (name) => make("span", {}, ...name.split("/").flatMap((part, at) => (at ? ["/", make("wbr"), part] : [part])));

/** Let a row of a list be in sight, without moving the page. */
export function intoSight(box, top, height) {
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + height > box.scrollTop + box.clientHeight) box.scrollTop = top + height - box.clientHeight;
}

/** Return a form with parts. */
export function form(parts) {
  const made = new FormData();
  for (const [name, value] of Object.entries(parts)) made.append(name, value);
  return made;
}

/** Say why something was refused: by the code of the reason, else by the answer's status, else as the service says it. */
function refusal(status, { reason, values = {}, detail }) {
  const key = [`reason.${reason}`, `status.${status}`].find(has);
  if (key) return say(key, values.role ? { ...values, role: say(`role.${values.role}`) } : values);
  return (Array.isArray(detail) ? detail.map((part) => part.msg).join("; ") : detail) || `${status}`;
}
/** Ask the service; what it refuses is thrown with its reason. */
export async function ask(method, path, body) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (body !== undefined && !(body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  const answer = await fetch(path, { method, headers, body });
  if (answer.ok) return answer;
  if (answer.status === 401) find("access").hidden = false;
  const said = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(refusal(answer.status, said)), { status: answer.status });
}
export const json = async (method, path, body) => (await ask(method, path, body)).json();

/** Do something that may be refused, and say so. */
export async function attempt(work) {
  find("problem").textContent = "";
  try {
    return await work();
  } catch (error) {
    find("problem").textContent = error instanceof TypeError && /fetch|network/i.test(error.message) ? say("away") : error.message;
    if (error instanceof TypeError || error instanceof ReferenceError) console.error(error);
  }
}

/** Ask the person, and return what was chosen, or nothing. `choices` are [value, text], the first one is the likely one. */
export function choose(text, choices, field) {
  const dialog = find("dialog");
  find("dialog-text").textContent = text;
  const buttons = choices.map(([value, name], at) => make("button", { value, textContent: name, className: at ? "" : "main" }));
  const cancel = make("button", { value: "", textContent: say("cancel"), formNoValidate: true });
  const asked = field ? [make("label", { className: "field" }, make("span", { textContent: field.name }),
    make("input", { type: "text", id: "dialog-field", value: field.value, maxLength: 64, required: true }))] : [];
  find("dialog-form").replaceChildren(...asked, cancel, ...buttons.toReversed());
  return new Promise((resolve) => {
    dialog.returnValue = "";
    dialog.onclose = () => resolve(dialog.returnValue && (field ? find("dialog-field").value.trim() : dialog.returnValue));
    dialog.showModal();
    (field ? find("dialog-field") : buttons[0]).focus();
    find("dialog-form").onkeydown = (event) => {
      if (event.key === "Enter" && event.target.id === "dialog-field") { event.preventDefault(); buttons[0].click(); }
    };
  });
}

/** Let something be done once things have been quiet for a while. */
export function afterwards(milliseconds, work) {
  let waiting = 0;
  return (...given) => { clearTimeout(waiting); waiting = setTimeout(() => work(...given), milliseconds); };
}

/** What the service and the person are: filled by main.js. */
export const state = { model: "", version: "", classes: [], volumes: false, user: { name: "", role: "reader" }, running: false };
const ROLES = ["reader", "labeller", "admin"], NOBODY = "anybody on this machine";
/** Return the name of a person, or what stands for it where nobody signs in. */
export const person = (name) => (name === NOBODY ? say("person.nobody") : name);
export const may = (role) => ROLES.indexOf(state.user.role) >= ROLES.indexOf(role);
