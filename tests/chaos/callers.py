"""Callers of a fault's own: what they submit beside the load, and what became of it."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import httpx
from sqlalchemy import select

from model_store.database import transaction
from tests.chaos.installation import Installation
from workers.tables import Job

PAUSE_SECONDS = 0.2


def signed_in(on: Installation, name: str, *models: str) -> httpx.Client:
    """An HTTP client of a new client of the gateways, which all know it already."""
    client_id, secret = on.client(name, *models)
    until = time.monotonic() + 30
    url = on.urls[0]
    paths = [f"{gateway}/v1/models/{model}" for gateway in on.urls for model in models]
    while True:
        try:
            form = {"grant_type": "client_credentials"}
            answer = httpx.post(f"{url}/oauth/token", data=form, auth=(client_id, secret), timeout=10)
            if answer.status_code == 200:
                headers = {"authorization": f"Bearer {answer.json()['access_token']}"}
                with contextlib.ExitStack() as held:
                    caller = held.enter_context(httpx.Client(base_url=url, headers=headers, timeout=10))
                    if all(caller.get(path).status_code == 200 for path in paths):
                        held.pop_all()
                        return caller
        except httpx.HTTPError:
            pass
        assert time.monotonic() < until, f"{name} could not sign in"
        time.sleep(0.2)


def submit(caller: httpx.Client, model: str, *row: float) -> str:
    answer = caller.post(f"/v1/models/{model}:submit", json={"instances": [list(row)]})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def rows_of(on: Installation, client_id: str, *states: str) -> list[Job]:
    with transaction(on.sessions, write=False) as session:
        return list(session.scalars(select(Job).where(Job.client_id == client_id, Job.state.in_(states))))


def ended(caller: httpx.Client, job: str, seconds: float) -> dict[str, Any]:
    """A job's document once it has ended; whatever is broken meanwhile, it is asked for again."""
    until = time.monotonic() + seconds
    while True:
        found: dict[str, Any] = {}
        try:
            answer = caller.get(f"/v1/jobs/{job}", params={"wait": 5})
            if answer.status_code == 200:
                found = answer.json()
                if found["state"] not in ("queued", "running"):
                    return found
        except httpx.HTTPError:
            pass
        assert time.monotonic() < until, f"after {seconds:g} s the job is still {found or 'not to be seen'}"
        time.sleep(PAUSE_SECONDS)
