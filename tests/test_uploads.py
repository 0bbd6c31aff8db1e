"""Uploads over HTTP: files and forms, what they are taken for, and every fault on the way."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import resource
import secrets
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from auth.scopes import Scope
from model_store.database import transaction
from tests.conftest import RedisServer
from tests.live_gateway import EVERY_MODEL, KERAS, LiveGateway, eventually, live_gateway, refused, upload
from workers.broker import PREPARE_QUEUE
from workers.tables import Preparation

MIB = 1024 * 1024
LIMIT = 40 * MIB
H5 = b"\x89HDF\r\n\x1a\n and what else belongs to it"


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    settings = {"redis_url": redis_server.url, "key_prefix": f"t{secrets.token_hex(4)}", "upload_limit_bytes": LIMIT}
    with live_gateway(folder, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def admin(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client([Scope.MODELS_WRITE], [EVERY_MODEL]) as client:
        yield client


@pytest.fixture
def model() -> str:
    """A name that no other test uses."""
    return f"m{secrets.token_hex(6)}"


def version(admin: httpx.Client, model: str, number: int = 1) -> dict[str, object]:
    return dict(admin.get(f"/admin/models/{model}/versions/{number}").raise_for_status().json())


def incoming(gateway: LiveGateway) -> list[Path]:
    return list((gateway.artifacts.root / "incoming").glob("*"))


def test_a_file_sent_as_it_is_becomes_a_version_that_waits_to_be_prepared(
    gateway: LiveGateway, admin: httpx.Client, model: str
):
    answer = upload(admin, model)
    location = f"/admin/models/{model}/versions/1"
    assert answer.status_code == 202
    assert answer.headers["location"] == location
    assert answer.json() == {
        "model": model,
        "version": 1,
        "state": "START",
        "preparation": {"step": "receive", "attempt": 0, "done": False},
        "location": location,
    }
    shown = admin.get(location).json()
    digest = hashlib.sha256(KERAS).hexdigest()
    assert (shown["format"], shown["digest"], shown["size_bytes"]) == ("keras", digest, len(KERAS))
    with gateway.artifacts.opened(digest) as path:
        assert path.read_bytes() == KERAS
    with transaction(gateway.parts.sessions) as session:
        assert session.get(Preparation, (model, 1)) is not None


def test_the_preparing_workers_are_told_of_an_upload(
    gateway: LiveGateway, admin: httpx.Client, model: str, redis_server: RedisServer
):
    upload(admin, model)
    queue = f"{gateway.parts.settings.key_prefix}:celery:{PREPARE_QUEUE}"
    with redis.Redis.from_url(redis_server.url) as client:
        eventually(lambda: any(model in _arguments(message) for message in client.lrange(queue, 0, -1)))


def test_a_form_with_the_file_does_the_same(admin: httpx.Client, model: str):
    answer = admin.post(f"/admin/models/{model}/versions", files={"file": ("mnist.keras", KERAS)})
    assert answer.status_code == 202
    assert version(admin, model)["digest"] == hashlib.sha256(KERAS).hexdigest()


def test_what_curl_takes_for_fields_of_a_form_is_no_file(admin: httpx.Client, model: str):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = admin.post(f"/admin/models/{model}/versions", content=KERAS, headers=headers)
    assert refused(answer, 415, "form_of_fields")
    assert admin.get(f"/admin/models/{model}").status_code == 404


def test_a_parameter_that_nobody_knows_is_refused(admin: httpx.Client, model: str):
    answer = admin.post(f"/admin/models/{model}/versions?fromat=onnx", content=KERAS)
    assert refused(answer, 422, "request_invalid")
    assert admin.get(f"/admin/models/{model}").status_code == 404


def test_the_same_bytes_again_are_the_version_that_is_there(admin: httpx.Client, model: str):
    first, again = upload(admin, model), upload(admin, model)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    assert upload(admin, f"{model}-other").status_code == 202
    assert upload(admin, model, KERAS + b"!").json()["version"] == 2


@pytest.mark.parametrize(
    ("name", "data", "query", "expected"),
    [
        ("model", KERAS, "", "keras"),
        ("model", H5, "", "h5"),
        ("model.keras", b"a text, which preparation will refuse", "", "keras"),
        ("model.HDF5", b"a text", "", "h5"),
        ("model.onnx", b"\x08\x08", "", "onnx"),
        ("model", b"\x08\x08", "?format=onnx", "onnx"),
        ("model.keras", H5, "", "h5"),
        ("model.h5", H5, "?format=keras", "keras"),
    ],
)
def test_what_a_file_is_tells_the_caller_or_its_first_bytes_or_its_name(
    admin: httpx.Client, model: str, name: str, data: bytes, query: str, expected: str
):
    answer = admin.post(f"/admin/models/{model}/versions{query}", files={"file": (name, data)})
    assert answer.status_code == 202
    assert version(admin, model)["format"] == expected


def test_a_file_that_could_be_anything_is_refused_with_what_is_accepted(
    gateway: LiveGateway, admin: httpx.Client, model: str
):
    answer = upload(admin, model, b"#!/bin/sh\n")
    assert refused(answer, 415, "unsupported_format")
    assert "?format=" in answer.json()["detail"]
    assert admin.get(f"/admin/models/{model}").status_code == 404
    assert incoming(gateway) == []


def test_an_announced_length_over_the_limit_is_refused_before_anything_is_read(
    gateway: LiveGateway, admin: httpx.Client
):
    with raw_upload(gateway, admin, "too-long", length=LIMIT + 1) as connection:
        # Not a byte of the body was sent.
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("form", [False, True])
def test_a_file_over_the_limit_is_refused_though_its_length_is_not_announced(
    gateway: LiveGateway, admin: httpx.Client, model: str, form: bool
):
    def endless() -> Iterator[bytes]:
        if form:
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="model.keras"\r\n\r\n'
        for _ in range(LIMIT // MIB + 1):
            yield b"PK\x03\x04".ljust(MIB, b"x")

    headers = {"content-type": "multipart/form-data; boundary=b"} if form else {}
    answer = admin.put(f"/admin/models/{model}/versions", content=endless(), headers=headers)
    assert refused(answer, 413, "artifact_too_large")
    assert str(LIMIT) in answer.json()["detail"]
    assert incoming(gateway) == []


@pytest.mark.parametrize("form", [False, True])
def test_an_upload_is_never_held_in_memory_as_a_whole(admin: httpx.Client, model: str, tmp_path: Path, form: bool):
    path = tmp_path / "large.keras"
    path.write_bytes(KERAS + os.urandom(30 * MIB))
    address = f"/admin/models/{model}/versions"
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            answer = admin.post(address, files={"file": file}) if form else admin.put(address, content=file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == 202
    # Client and gateway together: a few pieces of a mebibyte, however large the file.
    assert peak < 10 * MIB


@pytest.mark.parametrize("form", [False, True])
def test_an_empty_file_is_refused(gateway: LiveGateway, admin: httpx.Client, model: str, form: bool):
    address = f"/admin/models/{model}/versions"
    answer = admin.post(address, files={"file": ("m.keras", b"")}) if form else admin.put(address, content=b"")
    assert refused(answer, 422, "empty_file")
    assert incoming(gateway) == []


@pytest.mark.parametrize("name", ["a%20b", ".hidden", "-x", "a" * 129, "%C3%A4"])
def test_a_name_outside_the_rule_is_refused(admin: httpx.Client, name: str):
    assert refused(upload(admin, name), 422, "name_invalid")


def test_an_upload_that_breaks_off_leaves_nothing(gateway: LiveGateway, admin: httpx.Client, model: str):
    with raw_upload(gateway, admin, model, length=8 * MIB) as connection:
        connection.sendall(KERAS + b"x" * 3 * MIB)
        eventually(lambda: len(incoming(gateway)) == 1)
    eventually(lambda: incoming(gateway) == [])
    assert admin.get(f"/admin/models/{model}").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="m.keras"\r\n\r\nPK\x03\x04 half',
            400,
            "upload_incomplete",
        ),
        (b'--b\r\nContent-Disposition: form-data; name="format"\r\n\r\nkeras\r\n--b--\r\n', 422, "form_invalid"),
        (b"--b\r\nContent-Type: text/plain\r\n\r\nPK\x03\x04\r\n--b--\r\n", 422, "form_invalid"),
        (
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="m.keras"\r\n\r\nPK\x03\x04\r\n'
            b'--b\r\nContent-Disposition: form-data; name="g"; filename="n.keras"\r\n\r\nPK\x03\x04\r\n--b--\r\n',
            422,
            "form_invalid",
        ),
        (b"no boundary at all", 422, "form_invalid"),
        (b"--b\r\n" + b"X-Header: x\r\n" * 100_000, 422, "form_invalid"),
    ],
    ids=["truncated", "field", "unnamed", "two files", "no boundary", "endless headers"],
)
def test_a_form_that_is_not_one_whole_file_is_refused(
    gateway: LiveGateway, admin: httpx.Client, model: str, body: bytes, status: int, code: str
):
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = admin.post(f"/admin/models/{model}/versions", content=body, headers=headers)
    assert refused(answer, status, code)
    assert incoming(gateway) == []
    assert admin.get(f"/admin/models/{model}").status_code == 404


@pytest.mark.parametrize("boundary", [b"", b"; boundary=", b"; boundary=" + b"b" * 300])
def test_a_form_without_a_boundary_or_with_an_endless_one_is_refused(admin: httpx.Client, model: str, boundary: bytes):
    headers = {"content-type": b"multipart/form-data" + boundary}
    answer = admin.post(f"/admin/models/{model}/versions", content=KERAS, headers=headers)
    assert refused(answer, 422, "form_invalid")


def test_a_full_disk_is_said_to_be_full_and_keeps_nothing(gateway: LiveGateway, admin: httpx.Client, model: str):
    # The system refuses to write past six mebibytes in a file, as it does where no space is left; SQLite stays below.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 * MIB, hard))
    try:
        answer = upload(admin, model, KERAS + b"x" * 7 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused(answer, 507, "store_full")
    assert incoming(gateway) == []
    assert upload(admin, model, KERAS + b"x" * 7 * MIB).status_code == 202


def test_uploads_of_one_model_at_once_get_numbers_of_their_own(admin: httpx.Client, model: str):
    found: list[int] = []

    def one(content: int) -> None:
        found.append(upload(admin, model, KERAS + bytes([content])).json()["version"])

    threads = [threading.Thread(target=one, args=(content,)) for content in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [1, 2, 3, 4, 5, 6]


def test_a_slow_upload_keeps_nobody_from_writing(gateway: LiveGateway, admin: httpx.Client, model: str):
    with raw_upload(gateway, admin, model, length=8 * MIB) as connection:
        connection.sendall(KERAS + b"x" * 2 * MIB)
        eventually(lambda: len(incoming(gateway)) == 1)
        assert upload(admin, f"{model}-other").status_code == 202
    eventually(lambda: incoming(gateway) == [])


def raw_upload(gateway: LiveGateway, admin: httpx.Client, model: str, length: int) -> socket.socket:
    """A connection on which the head of an upload was sent, and nothing of its body."""
    url = httpx.URL(gateway.url)
    connection = socket.create_connection((url.host, url.port or 80), timeout=20)
    head = f"PUT /admin/models/{model}/versions HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: {length}\r\n"
    connection.sendall(f"{head}Authorization: {admin.headers['authorization']}\r\n\r\n".encode())
    return connection


def _arguments(message: bytes) -> str:
    """The arguments of a Celery message, as JSON."""
    return base64.b64decode(json.loads(message)["body"]).decode()
