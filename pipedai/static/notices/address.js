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

const buttons = ["confirm", "refuse-one", "refuse"].map(element);

async function answer(which, done, more) {
  buttons.forEach((button) => { button.disabled = true; });
  try {
    const response = await fetch(`/api/v1/addresses/${which}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token, ...more }),
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
  buttons.forEach((button) => { button.disabled = false; });
  element("confirm").addEventListener("click", () => answer("confirm", "Thank you. Notices come to your address from now on."));
  element("refuse-one").addEventListener("click", () => answer("refuse", "No notices of this environment will come to your address any more.", { everywhere: false }));
  element("refuse").addEventListener("click", () => answer("refuse", "No notices will come to your address any more."));
} else {
  show("The link is not complete. Open it from the mail once more.", true);
}
