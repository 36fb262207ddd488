// Shows times in the browser's zone. Without this script they stay in UTC.
"use strict";

const format = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

function localize(root) {
  for (const each of root.querySelectorAll("time[data-local]")) {
    const at = new Date(each.dateTime);
    each.title = each.textContent;
    each.textContent = format.format(at);
    delete each.dataset.local;
  }
}

localize(document);
document.addEventListener("htmx:load", (event) => localize(event.detail.elt));
