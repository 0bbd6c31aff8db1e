"""Uploads that broke off: who sees them, and the commands that list them and give them up."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import httpx
import pytest
from typer.testing import CliRunner, Result

from auth.grants import ADMINISTRATION, GrantSpec, set_grants
from auth.scopes import Scope
from model_store.database import transaction
from sluice.cli import app
from tests.live_gateway import KERAS
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway

FILE = KERAS + b"\0" * 1_000_000


class Uploader:
    """A client of a gateway that may upload, over HTTP and by commands."""

    def __init__(self, gateway: QuietGateway) -> None:
        client_id, secret = gateway.client(f"c-{secrets.token_hex(4)}", [Scope.MODELS_READ, Scope.MODELS_WRITE])
        with transaction(gateway.parts.sessions) as session:
            set_grants(session, client_id, [GrantSpec("*", actions=ADMINISTRATION)])
        gateway.parts.snapshot.refresh()
        address = str(gateway.http.base_url)
        self.http = httpx.Client(base_url=address, headers=bearer(gateway.token(client_id, secret)), timeout=30)
        self._who = {"SLUICE_URL": address, "SLUICE_CLIENT_ID": client_id, "SLUICE_CLIENT_SECRET": secret}

    def begin(self, model: str, received: int) -> str:
        """An upload of which so many bytes have come; returns its id."""
        begun = self.http.post(f"/admin/models/{model}/uploads", json={"size_bytes": len(FILE)})
        if received:
            head = {"content-range": f"bytes 0-{received - 1}/{len(FILE)}"}
            self.http.put(begun.headers["location"], content=FILE[:received], headers=head)
        return str(begun.json()["id"])

    def listed(self, model: str) -> list[str]:
        return [one["id"] for one in self.http.get(f"/admin/models/{model}/uploads").json()["uploads"]]

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["models", "uploads", *arguments], env={**self._who, "COLUMNS": "200"})


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest.fixture
def uploader(gateway: QuietGateway) -> Iterator[Uploader]:
    made = Uploader(gateway)
    with made.http:
        yield made


def test_a_client_sees_its_own_unfinished_uploads_of_a_model_and_no_others(gateway: QuietGateway, uploader: Uploader):
    model, stranger = f"m-{secrets.token_hex(4)}", Uploader(gateway)
    with stranger.http:
        stranger.begin(model, 0)

    # given one that has begun, one of another model, and one that became a version
    begun = uploader.begin(model, 600_000)
    uploader.begin(f"{model}-2", 0)
    uploader.begin(model, len(FILE))

    assert uploader.listed(model) == [begun]
    assert uploader.listed(f"{model}-3") == []


def test_commands_list_them_and_give_one_up(uploader: Uploader):
    model = f"m-{secrets.token_hex(4)}"
    begun = uploader.begin(model, 600_000)

    (listed,) = json.loads(uploader.run("list", model, "--json").output)
    assert (listed["id"], listed["received_bytes"], listed["size_bytes"]) == (begun, 600_000, len(FILE))
    assert "600.0 kB" in uploader.run("list", model).output

    assert uploader.run("delete", model, begun).output == f"{begun} is deleted\n"
    assert uploader.listed(model) == []
