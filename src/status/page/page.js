// What the status page gains from a script; without one nothing is missing but this: it stays as fresh as the agent, a filter
// works while it is typed, commands are copied at a click, and the age of things is counted on.
//
// The page is asked for again and only what differs is changed, so that focus, selection, scroll and what was folded open
// stay. Nothing is built from text here: nodes come from the document that the agent made.
"use strict";

const EVERY = 5000; // milliseconds between two looks
const PATIENCE = 15000; // for one answer
const TYPING = 200; // after the last key

const root = document.documentElement;
root.classList.add("script");

const live = document.getElementById("live");
const connection = document.getElementById("connection");
let paused = sessionStorage.getItem("paused") === "yes";
let look; // the one that is under way

// How far the agent's clock is from this one's.
let ahead = Date.parse(document.getElementById("as-of").dateTime) - Date.now();

// Looks again, unless a look is under way: an answer that is slow is worth waiting for, and one that never comes is given up.
async function refresh() {
  if (look) return;
  const mine = (look = new AbortController());
  const patience = setTimeout(() => mine.abort(), PATIENCE);
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store", signal: mine.signal });
    const text = await answer.text();
    if (look !== mine) return;
    show(new DOMParser().parseFromString(text, "text/html"));
    say("");
  } catch {
    if (look === mine) say("The agent does not answer; this is what it said last.");
  } finally {
    clearTimeout(patience);
    if (look === mine) look = undefined;
  }
}

// Something else is asked now: the answer to the question before is worth nothing.
function anew() {
  look?.abort();
  look = undefined;
  refresh();
}

// Whatever lacks a part of the page is none: an empty answer, a proxy's error.
function show(fresh) {
  const parts = ["main", "header nav", "footer .muted", "#as-of"].map((part) => [document.querySelector(part), fresh.querySelector(part)]);
  if (parts.some(([, now]) => !now)) throw new Error("not the page");
  const [main, nav, foot, [shown, now]] = parts;
  for (const part of [main, nav, foot]) settle(...part);
  document.title = fresh.title;
  shown.dateTime = now.dateTime;
  shown.textContent = now.textContent;
  ahead = Date.parse(now.dateTime) - Date.now();
}

function say(text) {
  if (connection.textContent !== text) connection.textContent = text;
}

// Makes `old` look like `fresh` with as few changes as it takes.
function settle(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  attributes(old, fresh);
  const wanted = [...fresh.childNodes];
  wanted.forEach((node, at) => {
    let here = old.childNodes[at];
    // A row that has moved keeps its node, and with it the focus inside.
    if (node.id && here?.id !== node.id) {
      const known = document.getElementById(node.id);
      if (known && known.parentNode === old) {
        old.insertBefore(known, here ?? null);
        here = known;
      }
    }
    if (!here) old.append(document.importNode(node, true));
    else if (here.nodeType !== node.nodeType || here.nodeName !== node.nodeName || (here.id ?? "") !== (node.id ?? "")) {
      if (here.id && [...wanted].some((later) => later.id === here.id)) old.insertBefore(document.importNode(node, true), here);
      else here.replaceWith(document.importNode(node, true));
    } else if (here.nodeType === Node.ELEMENT_NODE) settle(here, node);
    else if (here.nodeValue !== node.nodeValue) here.nodeValue = node.nodeValue;
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

// What the reader has changed is the reader's: a folded part, a choice, a text that is being typed.
const READERS = new Set(["DETAILS/open", "INPUT/value", "OPTION/selected"]);

function attributes(old, fresh) {
  for (const { name, value } of fresh.attributes) {
    if (READERS.has(`${old.nodeName}/${name}`)) continue;
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !READERS.has(`${old.nodeName}/${name}`)) old.removeAttribute(name);
  }
}

// The age of things, in the words of the agent.
function age(time, now) {
  const seconds = Math.floor(Math.abs(now - time) / 1000);
  const [unit, name] = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]].find(([unit]) => unit === 1 || seconds >= 2 * unit);
  const span = `${Math.floor(seconds / unit)}${name}`;
  if (time > now) return `in ${span}`;
  return seconds === 0 ? "now" : `${span} ago`;
}

function tick() {
  const now = Date.now() + ahead;
  for (const time of document.querySelectorAll("time[title]")) {
    const text = age(Date.parse(time.dateTime), now);
    if (time.textContent !== text) time.textContent = text;
  }
}

function selecting() {
  const selection = getSelection();
  return selection && !selection.isCollapsed;
}

live.hidden = false;
function label() {
  live.textContent = paused ? "Go on" : "Pause";
  live.setAttribute("aria-label", paused ? "Go on keeping this page fresh" : "Pause keeping this page fresh");
}
label();
live.addEventListener("click", () => {
  paused = !paused;
  sessionStorage.setItem("paused", paused ? "yes" : "no");
  label();
  if (!paused) refresh();
});

setInterval(() => {
  if (!paused && !document.hidden && !selecting()) refresh();
}, EVERY);
setInterval(() => {
  if (!document.hidden && !selecting()) tick();
}, 1000);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !paused) refresh();
});

// A filter is a question in the address, whoever asks it.
let typing;
function ask(form) {
  const question = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) question.append(name, value);
  const text = question.toString();
  history.replaceState(null, "", text ? `${form.getAttribute("action")}?${text}` : form.getAttribute("action"));
  anew();
}
document.addEventListener("input", (event) => {
  const form = event.target.form;
  if (!form?.matches(".filter")) return;
  clearTimeout(typing);
  typing = setTimeout(() => ask(form), event.target.matches("select") ? 0 : TYPING);
});
document.addEventListener("submit", (event) => {
  if (!event.target.matches(".filter")) return;
  event.preventDefault();
  clearTimeout(typing);
  ask(event.target);
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  let done = "Copied";
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch {
    done = "Not allowed";
  }
  button.textContent = done;
  setTimeout(() => (button.textContent = "Copy"), 2000);
});
