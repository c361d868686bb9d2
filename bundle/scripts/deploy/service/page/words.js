// The words of the page, one file a language: an element's `data-word` names its text, `data-label` its label.

const KEPT = "language";
let words = {};
let plural = new Intl.PluralRules("en");
let times = new Intl.DateTimeFormat("en");

/** Read the words of a language, the one that was chosen or the browser's, and write them into the page. */
export async function speak(chosen) {
  const listed = [...document.getElementById("language").options].map((option) => option.value);
  const wished = [chosen, localStorage.getItem(KEPT), ...navigator.languages.map((tag) => tag.slice(0, 2)), "en"];
  const language = wished.find((tag) => listed.includes(tag));
  if (chosen) localStorage.setItem(KEPT, chosen);
  words = await (await fetch(`page/words/${language}.json`)).json();
  plural = new Intl.PluralRules(language);
  times = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });
  document.documentElement.lang = language;
  document.getElementById("language").value = language;
  document.title = say("title");
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = say(element.dataset.word);
  for (const element of document.querySelectorAll("[data-label]")) element.ariaLabel = say(element.dataset.label);
}
/** Return a text with its parts filled in; where it has a form for one and for several, `n` tells which. */
export function say(key, parts = {}) {
  const text = words[key] ?? words[`${key}.${plural.select(parts.n ?? 0)}`] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => parts[name] ?? "");
}
/** Return the keys that begin with a word, and do not end with another. */
export const keysOf = (start) => Object.keys(words).filter((key) => key.startsWith(start));
/** Say whether there is a text. */
export const has = (key) => key in words;
/** Return a time, given in seconds since 1970 or as text, as people write it. */
export const time = (value) => times.format(new Date(typeof value === "number" ? 1000 * value : value));
/** Return a share, 0..1, as a number of 100. */
export const of100 = (share) => (share === null || share === undefined ? "–" : String(Math.round(100 * share)));
