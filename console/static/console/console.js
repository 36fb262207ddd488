// Shows times in the reader's zone, renews a page's live part when what it shows has changed, and answers to keys.
// Without this script times are in UTC, and a page is as new as when it was opened.
"use strict";

const all = (selector, root = document) => root.querySelectorAll(selector);
const byId = (id) => document.getElementById(id);
const own = Intl.DateTimeFormat().resolvedOptions().timeZone;

// `data-local` says how a time is shown, as the tag `when` does.
const clock = { hour: "2-digit", minute: "2-digit" }, day = { weekday: "short", day: "numeric", month: "short" };
const format = (options) => new Intl.DateTimeFormat("en-GB", options);
const formats = {
  "": format({ ...day, ...clock }), year: format({ ...day, year: "numeric", ...clock }), clock: format(clock),
  seconds: format({ ...clock, second: "2-digit" }), day: format({ day: "numeric", month: "short" }),
  whole: format({ ...day, year: "numeric", ...clock, timeZoneName: "short" }), date: format({ dateStyle: "short" }),
};
const days = [[0, "today"], [-1, "yesterday"], [1, "tomorrow"]];
const tidy = (words) => words.replaceAll(",", "").replace(/ (?=\d\d:)/, ", ");

function apart(seconds, parts) {
  const words = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].map(([size, unit]) => {
    const number = Math.floor(seconds / size);
    seconds -= number * size;
    return number && `${number} ${unit}`;
  });
  const first = words.findIndex(Boolean);
  return first < 0 ? "0 s" : words.slice(first, first + parts).filter(Boolean).join(" ");
}

function wordsOf(at, style) {
  const away = (at - Date.now()) / 1000;
  if (style === "since") return apart(-away, 2);
  if (style === "ago") return away > 1 ? `in ${apart(away, 1)}` : away > -1 ? "now" : `${apart(-away, 1)} ago`;
  if (style) return formats[style].format(at);
  const near = days.find(([number]) => formats.date.format(Date.now() + number * 864e5) === formats.date.format(at));
  if (near) return `${near[1]} ${formats.clock.format(at)}`;
  return tidy(formats[at.getFullYear() === new Date().getFullYear() ? "" : "year"].format(at));
}

function localize(root) {
  for (const each of all("time[data-local]", root)) {
    const at = new Date(each.dateTime);
    if (!each.dataset.utc) each.title = `${tidy(formats.whole.format(at))} (${each.dataset.utc = each.title.split(", ")[1]})`;
    const words = wordsOf(at, each.dataset.local);
    if (each.textContent !== words) each.textContent = words;
  }
}

// Reads a stream of events, while the page is seen, until it says that it is over. An EventSource that a hidden tab closes
// forgets the last id. `opened` is called when a stream begins, as changes may have been missed, or is refused.
function follow(url, last, hear, opened = () => {}) {
  let reading = null, isOver = false;

  async function read() {
    if (reading || isOver || document.hidden) return;
    reading = new AbortController();
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const answer = await fetch(url, { headers, signal: reading.signal });
      isOver = [204, 401, 403, 404].includes(answer.status);
      if (answer.status === 200) await listen(answer.body.pipeThrough(new TextDecoderStream()).getReader());
      else opened();
    } catch { /* The network is gone, or the tab was hidden. */ }
    reading = null;
    setTimeout(read, 5000);
  }

  async function listen(reader) {
    let rest = "", isNew = true;
    for (let part; !(part = await reader.read()).done;) {
      if (isNew) opened();
      isNew = false;
      const told = (rest + part.value).split("\n\n");
      rest = told.pop();
      for (const each of told) {
        const fields = Object.fromEntries(each.split("\n").map((line) => line.split(/: ?(.*)/s, 2)));
        last = fields.id ?? last;
        isOver ||= fields.event === "end";
        if (fields.data && !fields.event) hear(JSON.parse(fields.data));
      }
    }
  }

  addEventListener("visibilitychange", () => { if (document.hidden) reading?.abort(); else read(); });
  read();
}

// The live part. `data-follows` names what it shows, types of the environment's stream or ids; without it all counts.
// `data-events` is the stream of a run, which draws its trace anew.
const changed = new Set();
let isStale = false;
const outdate = () => { isStale = true; };
const news = document.createElement("p");
news.className = "news";
news.role = "status";
const show = document.createElement("button");
show.onclick = () => { refresh(true); byId("live").scrollIntoView(); };

function noteChange({ type, id }) {
  const follows = byId("live").dataset.follows?.split(" ");
  if (type !== "all" && follows && !follows.includes(type) && !follows.includes(id)) return;
  isStale = true;
  if (id) changed.add(id);
}

// Nothing jumps while somebody reads or types: who has scrolled into the part, has the focus in it or has selected text
// gets a button instead. A trace waits for who types or selects.
function isInUse(part) {
  const { top, bottom } = part.getBoundingClientRect();
  const isHeld = part.dataset.events ? part.querySelector(":is(input, textarea):focus")
    : (top < 0 && bottom > 0) || part.matches(":focus-within") || part.querySelector(".pick :checked");
  return isHeld || !getSelection().isCollapsed;
}

function refresh(isAsked) {
  const part = byId("live");
  const waits = !isAsked && isInUse(part);
  if (waits && changed.size) {
    const words = `Show ${changed.size} new`;
    if (show.textContent !== words) show.textContent = words;
    if (!show.isConnected) news.append(show);
  }
  if (!isStale || waits) return;
  isStale = false;
  changed.clear();
  show.remove();
  htmx.trigger(part, "refresh");
}

function followEnvironment(part) {
  document.body.append(news);
  follow(part.dataset.stream, "", noteChange, outdate);
  if (part.dataset.events) follow(part.dataset.events, part.dataset.last, outdate);
  setInterval(refresh, 1000);
  const again = () => setTimeout(outdate, 5000);
  addEventListener("htmx:responseError", again);
  addEventListener("htmx:sendError", again);
}

// What buttons do.
const acts = {
  async copy(button, of) {
    await navigator.clipboard.writeText(of.value ?? of.textContent);
    button.textContent = "Copied";
  },
  generate(button, of) {
    const bytes = crypto.getRandomValues(new Uint8Array(32));
    of.value = `${button.dataset.prefix ?? ""}${btoa(String.fromCharCode(...bytes))}`;
    if (of.type === "password") of.type = "text";
    button.nextElementSibling.hidden = false;
  },
  set(button, of) {
    of.value = button.dataset.value;
    of.dispatchEvent(new Event("input", { bubbles: true }));
  },
};

function prepare(root) {
  localize(root);
  for (const each of all("[data-act]", root)) each.hidden = each.dataset.later === "";
  for (const each of all("[data-without-script]", root)) each.hidden = true;
  const zones = byId("zones");
  if (zones && !zones.childElementCount) {
    zones.append(...[own, ...Intl.supportedValuesOf("timeZone")].map((each) => new Option(each, each)));
    const zone = document.querySelector("[data-fresh][list=zones]");
    if (zone?.value === "UTC") zone.value = own;
  }
}

// What is wrong unfolds.
addEventListener("invalid", ({ target }) => target.closest("details")?.setAttribute("open", ""), true);
addEventListener("click", (event) => {
  const { target } = event;
  const button = target.closest("[data-act]");
  if (button) acts[button.dataset.act]?.(button, byId(button.dataset.of));
  if (target.closest("[data-find]")) find(event);
});

// Ctrl-K finds, / filters, j and k move among rows, the arrows among what was found.
function find(event) {
  event.preventDefault();
  const dialog = byId("find"), before = document.activeElement;
  if (!dialog.open) {
    dialog.addEventListener("close", () => returnTo(before), { once: true });
    dialog.showModal();
  }
  dialog.querySelector("input").select();
}

// The focus returns by itself to what is still there. In a renewed part it goes to the same link, or else to the first.
function returnTo(held) {
  if (held.isConnected) return;
  const keyOf = ({ href, textContent }) => href ?? textContent;
  const same = [...all(held.tagName)].find((each) => keyOf(each) === keyOf(held));
  (same ?? document.querySelector("main :is(a, button)"))?.focus({ preventScroll: true });
}

function move(list, step) {
  const at = [...list].indexOf(document.activeElement);
  list[Math.min(Math.max(at + step, 0), list.length - 1)]?.focus();
}

addEventListener("keydown", (event) => {
  const { key, target } = event, dialog = byId("find");
  const step = { j: 1, k: -1, ArrowDown: 1, ArrowUp: -1 }[key];
  if (key === "k" && (event.ctrlKey || event.metaKey) && dialog) find(event);
  else if (dialog?.open && key[1] && step) move(all("[type=search], .found a", dialog), step);
  else if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, textarea, dialog")) return;
  else if (key === "/") document.querySelector("main [type=search], main .filters :is(select, input)")?.focus();
  else if (step && !key[1]) move(all("main :is(tbody th, .items h2) a"), step);
  else return;
  event.preventDefault();
});

prepare(document);
setInterval(() => localize(document), 1000);

// What was open stays open in a new part, and the focus where it was. htmx knows ids alone.
let opened = [], held;
addEventListener("htmx:beforeSwap", () => {
  opened = [...all("details[open][id]")];
  held = document.activeElement;
});
addEventListener("htmx:load", ({ detail }) => {
  prepare(detail.elt);
  for (const { id } of opened.splice(0)) if (byId(id)) byId(id).open = true;
  if (held && document.activeElement === document.body) returnTo(held);
});
if (byId("zone")) {
  const short = formats.whole.formatToParts(Date.now()).at(-1).value;
  byId("zone").textContent = short === own ? own : `${own} (${short})`;
  byId("in-utc").hidden = short === "UTC";
}
const live = byId("live");
if (live) followEnvironment(live);
