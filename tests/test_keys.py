"""The ring of signing keys: which key signs at a moment, which ones verify, and what is published of them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from auth.errors import KeysInvalid, KeysUnavailable
from auth.key_files import read_key_files
from auth.keys import HeldKey, KeyRing, require_private
from tests.forgery import KEY, OTHER_KEY, RETIRING_KEY

NOW = 1_800_000_000


def ring(*keys: HeldKey) -> KeyRing:
    return KeyRing(keys, clock=lambda: NOW)


def write_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes = b"") -> None:
    encryption: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    path.chmod(0o600)


def test_the_newest_key_whose_time_has_come_signs():
    found = ring(
        HeldKey(RETIRING_KEY.public, RETIRING_KEY.key, NOW * 1000 - 9000, NOW * 1000 + 9000),
        HeldKey(KEY.public, KEY.key, NOW * 1000),
        HeldKey(OTHER_KEY.public, OTHER_KEY.key, NOW * 1000 + 1),
    )
    assert found.signing.public.kid == KEY.public.kid


def test_a_key_verifies_from_its_publication_until_its_end():
    ended = HeldKey(RETIRING_KEY.public, RETIRING_KEY.key, 0, NOW * 1000)
    found = ring(ended, HeldKey(OTHER_KEY.public, OTHER_KEY.key, NOW * 1000 + 60_000))
    assert found.verifying(OTHER_KEY.public.kid) is not None
    assert found.verifying(RETIRING_KEY.public.kid) is None
    assert [key["kid"] for key in found.jwks()["keys"]] == [OTHER_KEY.public.kid]


def test_a_key_that_cannot_be_opened_verifies_while_an_older_one_signs():
    found = ring(HeldKey(KEY.public, None, 2), HeldKey(OTHER_KEY.public, OTHER_KEY.key, 1))
    assert found.signing.public.kid == OTHER_KEY.public.kid
    assert found.verifying(KEY.public.kid) == KEY.public


def test_without_a_key_whose_time_has_come_nothing_is_signed():
    with pytest.raises(KeysUnavailable) as refused:
        _ = ring(HeldKey(KEY.public, KEY.key, NOW * 1000 + 1000)).signing
    assert (refused.value.status, refused.value.retry_after_seconds) == (503, 2)


def test_the_key_id_is_the_thumbprint_of_rfc_7638():
    published = ring(HeldKey(KEY.public, KEY.key)).jwks()["keys"][0]
    # Section 3.2: the required members in the order of their names, without white space.
    text = f'{{"crv":"P-256","kty":"EC","x":"{published["x"]}","y":"{published["y"]}"}}'
    assert published["kid"] == base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def test_published_keys_have_public_members_only():
    published = ring(HeldKey(KEY.public, KEY.key)).jwks()
    assert json.loads(json.dumps(published)) == published
    assert [set(key) for key in published["keys"]] == [{"alg", "crv", "kid", "kty", "use", "x", "y"}]


def test_no_private_part_is_in_what_is_printed_of_keys():
    held = HeldKey(KEY.public, KEY.key)
    assert "private" not in repr(held).replace("EllipticCurvePrivateKey", "private", 1).partition("private")[2]
    assert "key=<" not in repr(KEY).partition("public=")[0]


def test_files_of_an_earlier_release_are_read_with_the_one_that_signs_first(tmp_path: Path):
    assert read_key_files(tmp_path / "missing") == []
    write_key(tmp_path / "signing.pem", KEY.key)
    write_key(tmp_path / "retiring.pem", RETIRING_KEY.key)
    found = read_key_files(tmp_path)
    assert [key.private_numbers() for key in found] == [KEY.key.private_numbers(), RETIRING_KEY.key.private_numbers()]


@pytest.mark.parametrize("readable", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_read_or_write_is_refused(tmp_path: Path, readable: int):
    write_key(tmp_path / "signing.pem", KEY.key)
    (tmp_path / "signing.pem").chmod(readable)
    with pytest.raises(KeysInvalid, match="chmod 600"):
        read_key_files(tmp_path)


def test_a_key_of_somebody_else_is_refused():
    somebody = os.geteuid() + 1
    found = os.stat_result((stat.S_IFREG | 0o600, 1, 1, 1, somebody, somebody, 1, 0, 0, 0))
    with pytest.raises(KeysInvalid, match="somebody else"):
        require_private(Path("signing.pem"), found)


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)], ids=["P-384", "RSA"]
)
def test_a_key_of_another_kind_is_refused(tmp_path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
    write_key(tmp_path / "signing.pem", key)
    with pytest.raises(KeysInvalid, match="P-256"):
        read_key_files(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "signing.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeysInvalid, match="PEM"):
        read_key_files(tmp_path)


def test_an_encrypted_key_is_refused(tmp_path: Path):
    write_key(tmp_path / "signing.pem", KEY.key, password=b"of somebody")
    with pytest.raises(KeysInvalid, match="unencrypted"):
        read_key_files(tmp_path)
