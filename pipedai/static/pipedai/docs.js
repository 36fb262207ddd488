// Starts Swagger UI. Calls are made with the browser's own session, or with a token entered under "Authorize".

// Swagger UI has dark colours, but does not ask the browser whether they are wanted.
const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", paint);
paint();

// Swagger UI's own filter compares the names of groups alone. This one keeps the operations in which each word occurs.
function matching(groups, phrase) {
  const words = phrase.toLowerCase().split(/\s+/);
  return groups
    .map((group, tag) =>
      group.update("operations", (operations) =>
        operations.filter((each) => {
          const of = (name) => each.getIn(["operation", name], "");
          const text = [tag, each.get("method"), each.get("path"), of("summary"), of("operationId")].join(" ").toLowerCase();
          return words.every((word) => text.includes(word));
        }),
      ),
    )
    .filter((group) => group.get("operations").size);
}

function filtering({ React }) {
  const Filter = ({ specSelectors, layoutSelectors, layoutActions }) => {
    const asked = layoutSelectors.currentFilter();
    const phrase = typeof asked === "string" ? asked : "";
    // Swagger UI has applied the filter to these already.
    const found = specSelectors.taggedOperations().reduce((sum, group) => sum + group.get("operations").size, 0);
    return React.createElement(
      "div",
      { className: "wrapper filter", role: "search" },
      React.createElement("label", { htmlFor: "filter" }, "Filter"),
      React.createElement("input", {
        id: "filter",
        type: "search",
        value: phrase,
        placeholder: "Words of an operation, such as: run cancel",
        onChange: (event) => layoutActions.updateFilter(event.target.value),
      }),
      React.createElement("span", { role: "status" }, `${found} operation${found === 1 ? "" : "s"}`),
    );
  };
  // A link within the button that opens an operation could not be reached by a screen reader (WCAG 4.1.2).
  const DeepLink = ({ text }) => React.createElement("span", null, text);
  return { components: { FilterContainer: Filter, DeepLink }, fn: { opsFilter: matching } };
}

// Swagger UI gives a choice no name, lets nobody scroll an example by keyboard, and begins its headings with the third level. What
// stands above its main part belongs to no part of the page.
function repair() {
  const all = (selector) => document.querySelectorAll(`#swagger-ui ${selector}`);
  for (const each of all("select")) each.ariaLabel ??= each.id === "servers" ? "Server" : "Content type";
  for (const each of all("pre")) each.tabIndex = 0;
  const parts = { ".information-container": "About this API", ".scheme-container": "Server and authorization" };
  for (const [selector, label] of Object.entries(parts)) {
    for (const each of all(selector)) Object.assign(each, { role: "region", ariaLabel: label });
  }
  for (const each of all("h3, h4, h5")) each.ariaLevel ??= each.tagName[1] - 1;
}
new MutationObserver(repair).observe(document.getElementById("swagger-ui"), { childList: true, subtree: true });

SwaggerUIBundle({
  url: "/api/v1/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "list",
  filter: true,
  plugins: [filtering],
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false, // a token belongs into no storage
  syntaxHighlight: false, // its colours have too little contrast
  validatorUrl: null, // it would tell a stranger where we are
});
