"use strict";

// Choosing a model: its own description takes the place of the whole interface's, with bodies that work to be sent.

const element = (id) => document.getElementById(id);

const say = (text) => {
  element("state").textContent = text;
};

// The document of an answer; null, and words about it, where the server refuses.
const read = async (address, options = {}) => {
  const headers = window.access.token === null ? {} : { Authorization: `Bearer ${window.access.token}` };
  let answer;
  try {
    answer = await fetch(address, { headers, ...options });
  } catch {
    say("The server cannot be reached.");
    return null;
  }
  const told = await answer.json().catch(() => ({}));
  if (answer.ok) {
    return told;
  }
  const reason = told.error_description ?? told.error ?? told.detail ?? "";
  say(`${answer.status}: ${reason}`);
  return null;
};

const offer = (names, who) => {
  element("models").replaceChildren(...names.map((name) => new Option(name, name)));
  for (const id of ["model", "show"]) {
    element(id).disabled = false;
  }
  say(names.length > 0 ? `${who} Choose one of ${names.length} models.` : `${who} There are no models to choose from.`);
};

const listModels = async () => {
  const told = await read("v1/models");
  if (told !== null) {
    offer(told.models, "Signed in as a client.");
  }
};

element("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = element("token").value.trim();
  window.access.token = null;
  if (given === "") {
    const form = {
      grant_type: "client_credentials",
      client_id: element("client-id").value.trim(),
      client_secret: element("client-secret").value,
    };
    const told = await read("oauth/token", { method: "POST", body: new URLSearchParams(form) });
    if (told === null) {
      return;
    }
    window.access.token = told.access_token;
  } else {
    window.access.token = given;
  }
  element("client-secret").value = "";
  element("token").value = "";
  await listModels();
});

const show = (address) => {
  window.ui.specActions.updateUrl(address);
  window.ui.specActions.download(address);
};

element("choose").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = element("model").value.trim();
  const model = encodeURIComponent(name);
  const address = window.access.token === null ? `admin/models/${model}/openapi.json` : `v1/models/${model}/openapi.json`;
  const told = name === "" ? null : await read(address);
  if (told !== null) {
    show(address);
    const needs = window.access.token === null ? " People do not predict: sign in as a client to send it." : "";
    say(`This is ${name}, version ${told.info.version}. Open a path and press Execute to send its example.${needs}`);
  }
});

element("whole").addEventListener("click", () => show("openapi.json"));

// Somebody whose browser has a session need not sign in to look.
const greet = async () => {
  const answer = await fetch("admin/models?limit=100").catch(() => null);
  if (answer !== null && answer.ok) {
    const told = await answer.json();
    offer(told.models.map((model) => model.name), "Your session lets you look.");
  }
};

greet();
