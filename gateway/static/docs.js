"use strict";

// Everything comes from this server: the page works without the internet, and no address of it is told to anybody.
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  // Otherwise Swagger UI would ask a server on the internet whether the description is valid.
  validatorUrl: null,
  // A token stays in this page's memory.
  persistAuthorization: false,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  defaultModelsExpandDepth: 0,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  // What Swagger UI was authorized with itself comes first.
  requestInterceptor: async (request) => {
    const sent = Object.keys(request.headers).some((name) => name.toLowerCase() === "authorization");
    const token = sent ? null : await window.access.tokenFor(request.url);
    if (token !== null) {
      request.headers.Authorization = `Bearer ${token}`;
    }
    return request;
  },
});
