"use strict";

// Who asks. Kept in this page's memory alone: who reloads it signs in again as a client; a person's session is a cookie
// that no script can read, and counts for no prediction. What predicts for a person is a token that the session gets.

const RENEW_SECONDS = 60;
// Where programs ask. Everywhere else a person's session itself is what counts.
const OF_PROGRAMS = ["v1/", "v2/", "models/", "endpoints/"];

const pathOf = (address) => {
  const here = new URL(".", document.baseURI);
  const asked = new URL(address, document.baseURI);
  // A token is for this server alone.
  return asked.origin === here.origin ? asked.pathname.slice(here.pathname.length) : null;
};

window.access = {
  // A client's token.
  token: null,
  // What GET admin/session says of the person who is signed in.
  person: null,
  page: null,
  renewal: null,

  get predicts() {
    return this.token !== null || (this.person !== null && this.person.scopes.includes("predict"));
  },

  // The token for an address; null where there is none to send.
  async tokenFor(address) {
    const path = pathOf(address);
    if (path === null || this.token !== null || !this.predicts || !OF_PROGRAMS.some((place) => path.startsWith(place))) {
      return path === null ? null : this.token;
    }
    if (this.page === null || Date.now() > this.page.renewAt) {
      // Once for all requests that wait for it.
      this.renewal ??= this.renew().finally(() => {
        this.renewal = null;
      });
      await this.renewal;
    }
    return this.page === null ? null : this.page.text;
  },

  async renew() {
    const person = this.person;
    const headers = { "X-CSRF-Token": person.csrf_token };
    const answer = await fetch("admin/session/page-token", { method: "POST", headers }).catch(() => null);
    const told = answer !== null && answer.ok ? await answer.json() : null;
    if (this.person !== person) {
      // Somebody signed in or out meanwhile.
      return;
    }
    if (told === null) {
      this.page = null;
      return;
    }
    const seconds = Math.max(told.expires_in - RENEW_SECONDS, told.expires_in / 2);
    this.page = { text: told.access_token, renewAt: Date.now() + seconds * 1000 };
  },

  asClient(token) {
    this.token = token;
  },

  asPerson(person) {
    Object.assign(this, { token: null, person, page: null });
  },
};
