// Moves the token of a mail from the URL's fragment into the form, and takes it out of the address bar and the history.
// Without this script, people copy the token from the link into the field.
"use strict";

const token = new URLSearchParams(location.hash.slice(1)).get("token");
const field = document.querySelector("form input[name=token], form input[name=registrationToken]");
if (field) {
  if (token) field.value = token;
  if (field.value) field.parentElement.hidden = true;
}
if (token && field) {
  history.replaceState(null, "", location.pathname);
  if (field.form.dataset.sent === "at-once") field.form.requestSubmit();
}
