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
      { className: "wrapper filter" },
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
  return { components: { FilterContainer: Filter }, fn: { opsFilter: matching } };
}

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
  validatorUrl: null, // it would tell a stranger where we are
});
