// Shows the served document. Every option that could make the page talk to another host is off; the
// response's Content-Security-Policy forbids it besides.
"use strict";

const base = new URL(".", document.baseURI).href.replace(/\/$/, "");

Scalar.createApiReference("#reference", {
  url: "openapi.json",
  title: "Sheaf",
  servers: [{ url: base, description: "This server" }],

  telemetry: false,
  withDefaultFonts: false,
  agent: { disabled: true },
  mcp: { disabled: true },
  showDeveloperTools: "never",
  hideClientButton: true,
  persistAuth: false,

  hiddenClients: true,
  theme: "default",
  layout: "modern",
  modelsSectionLabel: "Schemas",
  orderSchemaPropertiesBy: "preserve",
  defaultOpenAllTags: false,
});
