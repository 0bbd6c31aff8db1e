"""Signed uploads: a signature is over one file and one model, and where signatures are demanded nothing else enters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auth import clients
from auth.scopes import Scope
from model_store.database import transaction
from model_store.upload_signatures import key_id, public_text, sign
from tests.command_line import sluice
from tests.conftest import RedisServer
from tests.live_gateway import LiveGateway, live_gateway
from tests.system import plain_environment

KERAS = b"PK\x03\x04 a model"
DIGEST = hashlib.sha256(KERAS).hexdigest()
KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(byte * 32) for byte in (b"k", b"o"))


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("signed")
    with live_gateway(folder, redis_url=redis_server.url, upload_signatures="required") as started:
        yield started


@pytest.fixture(scope="module")
def admin(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client(list(Scope)) as client:
        answer = client.post("/admin/upload-keys", json={"name": "build", "public_key": public_text(KEY)})
        assert answer.status_code == 201
        yield client


def commanding(gateway: LiveGateway, name: str) -> dict[str, str]:
    """The environment of commands of a new administrator."""
    with transaction(gateway.parts.sessions) as session:
        made, secret = clients.create(session, name, list(Scope), gateway.parts.settings.pepper)
    told = {"SLUICE_URL": gateway.url, "SLUICE_CLIENT_ID": made.id, "SLUICE_CLIENT_SECRET": secret}
    return plain_environment() | told


def upload(admin: httpx.Client, model: str, signature: str | None, content: bytes = KERAS) -> httpx.Response:
    headers = {} if signature is None else {"sluice-signature": signature}
    return admin.post(f"/admin/models/{model}/versions", content=content, headers=headers)


def test_the_name_of_a_key_is_the_thumbprint_of_rfc_8037():
    # Appendix A.3.
    assert key_id(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")) == (
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    )


def test_a_signed_file_is_taken_and_says_who_signed_it(admin: httpx.Client):
    signature = sign(KEY, "signed", DIGEST)
    accepted = upload(admin, "signed", signature)
    assert accepted.status_code == 202
    shown = admin.get(accepted.headers["location"]).json()
    assert shown["signed_by"] == signature.partition(".")[0] == admin.get("/admin/upload-keys").json()["keys"][0]["id"]


def test_where_signatures_are_demanded_an_unsigned_file_is_refused_before_it_is_read(admin: httpx.Client):
    refused = upload(admin, "unsigned", None)
    assert (refused.status_code, refused.json()["code"]) == (422, "signature_missing")
    assert admin.get("/admin/models/unsigned").status_code == 404


@pytest.mark.parametrize(
    "signature",
    [
        sign(OTHER, "wrong", DIGEST),
        sign(KEY, "another", DIGEST),
        sign(KEY, "wrong", hashlib.sha256(b"another file").hexdigest()),
        sign(OTHER, "wrong", DIGEST).partition(".")[0] + "." + sign(KEY, "wrong", DIGEST).partition(".")[2],
        sign(KEY, "wrong", DIGEST).partition(".")[0] + "." + sign(OTHER, "wrong", DIGEST).partition(".")[2],
        sign(KEY, "wrong", DIGEST)[:-1],
        "",
        "none",
        "A" * 43 + "." + "A" * 86,
    ],
)
def test_any_other_signature_is_refused_alike_and_nothing_is_kept(admin: httpx.Client, signature: str):
    refused = upload(admin, "wrong", signature)
    assert (refused.status_code, refused.json()["code"]) == (422, "signature_invalid")
    assert admin.get("/admin/models/wrong").status_code == 404


def test_a_removed_key_signs_nothing_any_more_and_versions_stay(admin: httpx.Client):
    key = Ed25519PrivateKey.generate()
    added = admin.post("/admin/upload-keys", json={"name": "leaving", "public_key": public_text(key)}).json()
    assert upload(admin, "stays", sign(key, "stays", DIGEST)).status_code == 202
    assert admin.delete(f"/admin/upload-keys/{added['id']}").status_code == 204
    assert admin.delete(f"/admin/upload-keys/{added['id']}").status_code == 404
    assert upload(admin, "later", sign(key, "later", DIGEST)).json()["code"] == "signature_invalid"
    assert admin.get("/admin/models/stays/versions/1").json()["signed_by"] == added["id"]


@pytest.mark.parametrize(
    ("name", "public", "status"),
    [
        ("build", public_text(OTHER), 409),
        ("again", public_text(KEY), 409),
        ("short", "A" * 42, 422),
        ("a b", public_text(OTHER), 422),
    ],
)
def test_a_key_that_is_none_or_known_is_refused(admin: httpx.Client, name: str, public: str, status: int):
    assert admin.post("/admin/upload-keys", json={"name": name, "public_key": public}).status_code == status


def test_the_commands_make_a_key_and_sign_with_it(gateway: LiveGateway, tmp_path: Path):
    environment = commanding(gateway, "laptop")
    file, key = tmp_path / "model.keras", tmp_path / "key.pem"
    file.write_bytes(KERAS)
    public = sluice("upload-keys", "new", str(key), environment=environment).stdout.strip()
    assert key.stat().st_mode & 0o777 == 0o600
    assert sluice("upload-keys", "new", str(key), environment=environment).returncode == 1
    assert sluice("upload-keys", "add", "laptop", public, environment=environment).returncode == 0
    pushed = sluice(
        "models", "push", "pushed", str(file), "--sign-with", str(key), "--no-wait", environment=environment
    )
    assert pushed.returncode == 0, pushed.stderr
    assert "laptop" in sluice("upload-keys", "list", environment=environment).stdout


def test_a_key_may_begin_with_a_dash(gateway: LiveGateway):
    environment = commanding(gateway, "dashes")
    keys = (public_text(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number in range(256))
    public = next(key for key in keys if key.startswith("-"))
    added = sluice("upload-keys", "add", "dash", public, environment=environment)
    assert added.returncode == 0, added.stderr
    assert sluice("upload-keys", "remove", "dash", environment=environment).returncode == 0
