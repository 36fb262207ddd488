// Shows times in the browser's zone, and reads a page's live part again when something in its environment has changed.
// Without this script times are in UTC, and a page is as new as when it was opened.
"use strict";

const format = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

function localize(root) {
  for (const each of root.querySelectorAll("time[data-local]")) {
    each.title = each.textContent;
    each.textContent = format.format(new Date(each.dateTime)).replace(",", "").replace(/ (?=\d\d:)/, ", ");
    each.removeAttribute("data-local");
  }
}

// Nothing may jump while somebody reads or types, so the part waits while the pointer or the focus is in it.
let stream, changed = false;
function refresh() {
  const part = document.getElementById("live");
  if (!changed || part.matches(":hover, :focus-within") || !getSelection().isCollapsed) return;
  changed = false;
  htmx.trigger(part, "refresh");
}

function listen() {
  stream?.close();
  stream = null;
  const part = document.getElementById("live");
  if (!part || document.hidden) return;
  stream = new EventSource(part.dataset.stream);
  stream.onmessage = () => { changed = true; };
}

for (const each of document.querySelectorAll("[data-without-script]")) each.hidden = true;
localize(document);
listen();
if (document.getElementById("live")) setInterval(refresh, 1000);
document.addEventListener("htmx:load", (event) => localize(event.detail.elt));
document.addEventListener("visibilitychange", () => { changed = changed || !document.hidden; listen(); });
