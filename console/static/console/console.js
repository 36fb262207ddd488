// Shows times in the browser's zone, reads a page's live part again when something that it shows has changed, and
// appends what a run tells. Without this script times are in UTC, and a page is as new as when it was opened.
"use strict";

const day = { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
const formats = {
  "": new Intl.DateTimeFormat("en-GB", day),
  seconds: new Intl.DateTimeFormat("en-GB", clock),
  year: new Intl.DateTimeFormat("en-GB", { ...day, year: "numeric" }),
};

function localize(root) {
  for (const each of root.querySelectorAll("time[data-local]")) {
    each.title = each.textContent;
    const at = new Date(each.dateTime);
    const format = each.dataset.local || (at.getFullYear() === new Date().getFullYear() ? "" : "year");
    const words = formats[format].format(at);
    each.textContent = words.replaceAll(",", "").replace(/ (?=\d\d:)/, ", ");
    each.removeAttribute("data-local");
  }
}

// Reads a stream of events, while the page is seen, until the stream says that it is over. An EventSource would forget
// the id of the last event when it is closed for a hidden tab. `opened` is called with the first line of each stream,
// since changes may have been missed until then, and when the stream is refused, so that the page finds out why.
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

  document.addEventListener("visibilitychange", () => { if (document.hidden) reading?.abort(); else read(); });
  read();
}

// The live part. `data-follows` names what it shows: types of the environment's stream (run, worker, incident) or ids;
// without it everything counts.
const changed = new Set();
let isStale = false;
const news = document.createElement("p");
news.className = "news";
news.setAttribute("role", "status");
const show = document.createElement("button");
show.onclick = () => { refresh(true); document.getElementById("live").scrollIntoView(); };

function noteChange({ type, id }) {
  const follows = document.getElementById("live").dataset.follows?.split(" ");
  if (type !== "all" && follows && !follows.includes(type) && !follows.includes(id)) return;
  isStale = true;
  if (id) changed.add(id);
}

// Nothing jumps while somebody reads or types: who has scrolled into the part, has the focus in it or has selected
// some text gets a button instead.
function isInUse(part) {
  const { top, bottom } = part.getBoundingClientRect();
  return (top < 0 && bottom > 0) || part.matches(":focus-within") || !getSelection().isCollapsed;
}

function refresh(isAsked) {
  const part = document.getElementById("live");
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
  follow(part.dataset.stream, "", noteChange, () => { isStale = true; });
  setInterval(refresh, 1000);
  const again = () => setTimeout(() => { isStale = true; }, 5000);
  document.addEventListener("htmx:responseError", again);
  document.addEventListener("htmx:sendError", again);
}

// What a run tells. The texts are cut and shown as console/screens/runs.py does it for the first ones.
const LONGEST = 2000, MOST_LINES = 1000;
const unseen = /[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]/gu;

function visible(text) {
  return text.replace(/\r\n/g, "\n").replace(unseen, (each) => `\\u${each.charCodeAt().toString(16).padStart(4, "0")}`);
}

function textOf({ text, data }) {
  const shown = data?.input ?? (text ? null : data);
  return [text, shown === null ? "" : JSON.stringify(shown)].join(" ").trim();
}

function append(list, event) {
  const item = document.getElementById("event").content.cloneNode(true).firstElementChild;
  const time = item.querySelector("time"), text = textOf(event), isError = Boolean(event.data?.isError);
  time.dateTime = event.at;
  time.textContent = `${event.at.slice(11, 19)} UTC`;
  localize(item);
  item.classList.toggle("failed", isError);
  item.querySelector(".kind").textContent = visible(event.type.replaceAll("_", " ")) + (isError ? ", failed" : "");
  item.querySelector(".words").textContent = visible(text.slice(0, LONGEST));
  if (text.length > LONGEST) {
    const whole = document.createElement("a");
    whole.href = `?after=${event.seq - 1}&limit=1#events`;
    whole.textContent = "Show it whole";
    item.append(whole);
  }
  // Who has scrolled to the last line follows the lines that come.
  const page = document.documentElement;
  const isAtEnd = scrollY > 0 && scrollY + innerHeight > page.scrollHeight - 80;
  list.append(item);
  if (isAtEnd) scrollTo(0, page.scrollHeight);
  if (list.childElementCount > MOST_LINES) list.firstElementChild.remove();
  document.getElementById("nothing")?.remove();
}

for (const each of document.querySelectorAll("[data-without-script]")) each.hidden = true;
localize(document);
document.addEventListener("htmx:load", (event) => localize(event.detail.elt));
const live = document.getElementById("live");
if (live) followEnvironment(live);
const told = document.getElementById("told");
if (told?.dataset.stream) follow(told.dataset.stream, told.dataset.last, (event) => append(told, event));
