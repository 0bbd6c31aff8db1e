"""The Python client against a running system."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from sluice import AsyncClient
from sluice.client import Client, CredentialsInvalid, Json, Refused, Unreachable, model_path
from sluice.listening_ports import free_port
from sluice.preparation import PreparationFailed, follow
from tests.onnx_models import line
from tests.system import System


@pytest.fixture
def admin(system: System) -> Iterator[Client]:
    with system.admin() as sluice:
        yield sluice


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A socket that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def address_of(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def new_client(admin: Client, *models: str) -> Iterator[tuple[str, Client]]:
    """The id of a new client with all grants on the models, and the client itself."""
    made = admin.post("/admin/clients", {"name": new_name(), "grants": [{"model": model} for model in models]})
    with Client(admin.base_url, made["id"], made["client_secret"]) as sluice:
        yield made["id"], sluice


def new_name() -> str:
    return f"t-{secrets.token_hex(4)}"


def eventually(call: Callable[[], object]) -> object:
    """What the call returns, as soon as the gateway has learned of a change (half a second)."""
    until = time.monotonic() + 10
    while True:
        try:
            return call()
        except Refused as error:
            if error.status not in (401, 404) or time.monotonic() > until:
                raise
        time.sleep(0.05)


def refusal_of(call: Callable[[], object]) -> Refused:
    """How the call is refused, as soon as the gateway has learned of a change."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            call()
        except Refused as error:
            return error
        time.sleep(0.05)
    raise AssertionError("it was not refused")


def test_a_file_is_uploaded_prepared_and_predicts(admin: Client, tmp_path: Path) -> None:
    # given the line y = 2 x1 - 3 x2 + 4 as an ONNX file
    file = line(tmp_path / "line.onnx", weights=[2.0, -3.0], bias=4.0)
    model, sent = new_name(), []

    # when it is uploaded and its preparation followed
    uploaded = admin.upload(model, file, progress=lambda done, size: sent.append((done, size)))
    steps: list[str] = []
    version = follow(admin, model, uploaded["version"], steps.append)

    # then the progress was told up to the last byte, and it predicts, also from an array
    assert sent[-1] == (file.stat().st_size, file.stat().st_size)
    assert (version["state"], version["version"]) == ("AVAILABLE", 1)
    with new_client(admin, model) as (_, sluice):
        predictions = eventually(lambda: sluice.predict(model, np.array([[1.0, 1.0], [0.0, 2.0]], dtype="float32")))
        assert np.allclose(np.ravel(predictions), [3.0, -2.0])
        assert np.allclose(np.ravel(sluice.predict(model, [[0.5, 0.0]], version=1)), [5.0])


def test_a_file_is_uploaded_by_tasks_as_well(system: System, tmp_path: Path) -> None:
    file, sent = line(tmp_path / "line.onnx", weights=[2.0, -3.0], bias=4.0), []

    async def upload() -> Json:
        async with AsyncClient(system.base_url, system.admin_client_id, system.admin_client_secret) as sluice:
            return await sluice.upload(new_name(), file, progress=lambda done, size: sent.append((done, size)))

    assert asyncio.run(upload())["version"] == 1
    assert sent[-1] == (file.stat().st_size, file.stat().st_size)


def test_a_file_that_is_no_model_is_refused_with_the_reason(admin: Client, tmp_path: Path) -> None:
    file = tmp_path / "broken.keras"
    file.write_bytes(b"PK\x03\x04 and nothing more")
    model = new_name()

    uploaded = admin.upload(model, file)

    with pytest.raises(PreparationFailed, match=f"{model} version 1 does not serve: "):
        follow(admin, model, uploaded["version"], [].append)


def test_a_token_that_was_revoked_is_replaced_without_a_word(admin: Client) -> None:
    with new_client(admin) as (client_id, sluice):
        # given a client with a token
        eventually(lambda: sluice.get("/v1/models"))

        # when it is disabled, its token is refused
        admin.post(f"/admin/clients/{client_id}/disable")
        assert refusal_of(lambda: sluice.get("/v1/models")).status == 401

        # then it goes on with a new one once it is enabled again
        admin.post(f"/admin/clients/{client_id}/enable")
        assert eventually(lambda: sluice.get("/v1/models")) == {"models": []}


def test_a_wrong_secret_is_refused(system: System) -> None:
    with Client(system.base_url, system.admin_client_id, "sls_wrong") as sluice, pytest.raises(Refused) as refused:
        sluice.get("/v1/models")

    assert refused.value.status == 401
    assert refused.value.code == "invalid_client"


def test_errors_of_every_dialect_are_told_as_sentences(admin: Client) -> None:
    with pytest.raises(Refused, match=r"Servable not found for request: Latest\(nothing\)") as of_tensorflow_serving:
        admin.predict("nothing", [[1.0]])
    with pytest.raises(Refused) as of_administration:
        admin.get("/admin/clients/cli_nobody")

    assert of_tensorflow_serving.value.status == 404
    assert (of_administration.value.status, of_administration.value.code) == (404, "client_not_found")


def test_no_gateway_at_an_address_is_said_so() -> None:
    address = f"http://127.0.0.1:{free_port()}"

    with Client(address, "cli_x", "sls_x") as sluice, pytest.raises(Unreachable, match="cannot be reached"):
        sluice.get("/v1/models")


def test_a_silent_server_is_given_up_after_the_time_limit(server: socket.socket) -> None:
    with (
        Client(address_of(server), "cli_x", "sls_x", timeout_seconds=0.2) as sluice,
        pytest.raises(Unreachable, match="no answer in time"),
    ):
        sluice.get("/v1/models")


def test_something_else_than_a_gateway_is_recognised(server: socket.socket) -> None:
    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")

    thread = threading.Thread(target=answer)
    thread.start()

    with (
        Client(address_of(server), "cli_x", "sls_x") as sluice,
        pytest.raises(Unreachable, match="did not answer with JSON"),
    ):
        sluice.get("/v1/models")
    thread.join()


def test_credentials_come_from_a_file(system: System, tmp_path: Path) -> None:
    admin = {"admin_client_id": system.admin_client_id, "admin_client_secret": system.admin_client_secret}
    file = tmp_path / "demo.json"
    file.write_text(json.dumps({"base_url": system.base_url, "client_id": "cli_x", "client_secret": "sls_x", **admin}))

    with Client.from_file(file, admin=True) as sluice:
        assert "clients" in sluice.get("/admin/clients")
    with Client.from_file(file) as sluice, pytest.raises(Refused):
        sluice.get("/v1/models")


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot read"), ("no JSON", "is not a JSON object"), ("[]", "is not a JSON object"), ("{}", "'base_url'")],
)
def test_a_file_without_credentials_is_refused_with_the_reason(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "file").write_text(text)

    with pytest.raises(CredentialsInvalid, match=message):
        Client.from_file(tmp_path / "file")


def test_names_are_quoted_in_paths() -> None:
    assert model_path("a/b c", label="über") == "/v1/models/a%2Fb%20c/labels/%C3%BCber"
