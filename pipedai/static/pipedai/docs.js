// Starts Swagger UI. Calls are made with the browser's own session, or with a token entered under "Authorize".
SwaggerUIBundle({
  url: "/api/v1/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false, // a token belongs into no storage
  validatorUrl: null, // it would tell a stranger where we are
});
