// Sends to the API whether the owner of an address agrees to notices. The token is in the fragment of the URL, which
// this script removes from the address bar at once.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
history.replaceState(null, "", location.pathname);
const element = (id) => document.getElementById(id);

function show(sentence, isError) {
  element("answer").textContent = sentence;
  element("answer").className = isError ? "error" : "done";
  element("answer").hidden = false;
}

async function answer(which, done) {
  const buttons = [element("confirm"), element("refuse")];
  buttons.forEach((button) => { button.disabled = true; });
  try {
    const response = await fetch(`/api/v1/addresses/${which}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
    });
    if (response.ok) {
      show(done, false);
      buttons.forEach((button) => { button.hidden = true; });
      element("question").hidden = true;
      return;
    }
    show((await response.json()).error, true);
  } catch {
    show("The service did not answer. Try again.", true);
  }
  buttons.forEach((button) => { button.disabled = false; });
}

if (token) {
  element("confirm").disabled = element("refuse").disabled = false;
  element("confirm").addEventListener("click", () => answer("confirm", "Thank you. Notices come to your address from now on."));
  element("refuse").addEventListener("click", () => answer("refuse", "No notices will come to your address any more."));
} else {
  show("The link is not complete. Open it from the mail once more.", true);
}
