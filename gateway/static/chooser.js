"use strict";

// Choosing a model: its own description takes the place of the whole interface's, with bodies that work to be sent.

const element = (id) => document.getElementById(id);

const say = (text) => {
  element("state").textContent = text;
};

// The document of an answer; null, and words about it, where the server refuses.
const read = async (address, options = {}) => {
  const token = await window.access.tokenFor(address);
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
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

const listModels = async (who) => {
  if (window.access.predicts) {
    const told = await read("v1/models");
    if (told !== null) {
      offer(told.models, who);
    }
    return;
  }
  const told = await read("admin/models?limit=100");
  if (told !== null) {
    offer(told.models.map((model) => model.name), `${who} Your role lets you look.`);
  }
};

const nobody = () => {
  window.access.asPerson(null);
  element("sign-out").hidden = true;
  element("models").replaceChildren();
  for (const id of ["model", "show"]) {
    element(id).disabled = true;
  }
};

const welcome = async (person) => {
  window.access.asPerson(person);
  element("sign-out").hidden = false;
  await listModels(`Signed in as ${person.name}.`);
};

element("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = element("token").value.trim();
  window.access.asClient(null);
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
    window.access.asClient(told.access_token);
  } else {
    window.access.asClient(given);
  }
  element("client-secret").value = "";
  element("token").value = "";
  await listModels("Signed in as a client.");
});

element("sign-in-person").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = {
    name: element("name").value.trim(),
    password: element("password").value,
    code: element("code").value.trim() || null,
  };
  element("password").value = "";
  element("code").value = "";
  const headers = { "Content-Type": "application/json" };
  const person = await read("admin/session", { method: "POST", headers, body: JSON.stringify(given) });
  if (person !== null) {
    await welcome(person);
  }
});

element("sign-out").addEventListener("click", async () => {
  const headers = { "X-CSRF-Token": window.access.person?.csrf_token ?? "" };
  const answer = await fetch("admin/session", { method: "DELETE", headers }).catch(() => null);
  const ended = answer !== null && (answer.ok || answer.status === 401);
  if (ended) {
    nobody();
  }
  say(ended ? "Signed out." : "The server did not end the session: try again.");
});

const show = (address) => {
  window.ui.specActions.updateUrl(address);
  window.ui.specActions.download(address);
};

element("choose").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = element("model").value.trim();
  const model = encodeURIComponent(name);
  const address = window.access.predicts ? `v1/models/${model}/openapi.json` : `admin/models/${model}/openapi.json`;
  const told = name === "" ? null : await read(address);
  if (told !== null) {
    show(address);
    const needs = window.access.predicts ? "" : " Your role does not predict: sign in as a client to send it.";
    say(`This is ${name}, version ${told.info.version}. Open a path and press Execute to send its example.${needs}`);
  }
});

element("whole").addEventListener("click", () => show("openapi.json"));

// Somebody whose browser has a session need not sign in.
const greet = async () => {
  const answer = await fetch("admin/session").catch(() => null);
  if (answer !== null && answer.ok) {
    await welcome(await answer.json());
  }
};

greet();
