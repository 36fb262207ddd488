// Copies the text of the element that a button's data-copy names. Without this script the button is not seen.
"use strict";

for (const each of document.querySelectorAll("[data-copy]")) {
  each.hidden = false;
  each.onclick = async () => {
    await navigator.clipboard.writeText(document.getElementById(each.dataset.copy).textContent);
    each.textContent = "Copied";
  };
}
