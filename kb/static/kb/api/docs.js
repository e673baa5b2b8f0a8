// Shows the OpenAPI document. Signed-in people can try calls: the CSRF token goes along.
"use strict";

const place = document.getElementById("api");
const root = document.documentElement;
const theme = root.dataset.theme;
const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
root.classList.toggle("dark-mode", theme === "dark" || (theme !== "light" && isDark));

function csrfToken() {
  const cookie = document.cookie.split("; ").find((part) => part.startsWith("csrftoken="));
  return cookie ? decodeURIComponent(cookie.slice("csrftoken=".length)) : "";
}

SwaggerUIBundle({
  url: place.dataset.schema,
  domNode: place,
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  validatorUrl: null,
  requestInterceptor(request) {
    if (new URL(request.url, location.href).origin === location.origin) {
      request.headers["X-CSRFToken"] = csrfToken();
    }
    return request;
  },
});
