"use strict";

// Kept in this page's memory alone: who reloads it signs in again.
window.access = { token: null };

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
  // What Swagger UI was authorized with itself comes first; and the token is for this server alone.
  requestInterceptor: (request) => {
    const here = new URL(request.url, document.baseURI).origin === window.location.origin;
    const sent = Object.keys(request.headers).some((name) => name.toLowerCase() === "authorization");
    if (window.access.token !== null && here && !sent) {
      request.headers.Authorization = `Bearer ${window.access.token}`;
    }
    return request;
  },
});
