"""Signing keys: made once, kept private, published without their secret."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
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

from auth.errors import KeysInvalid
from auth.keys import load_keys, require_private

ROOT = Path(__file__).parent.parent


def write_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes = b"") -> None:
    encryption: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    path.chmod(0o600)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_a_key_that_nobody_else_can_read(tmp_path: Path):
    folder = tmp_path / "data" / "keys"
    load_keys(folder)
    assert mode(folder) == 0o700
    assert {path.name: mode(path) for path in folder.iterdir()} == {"signing.pem": 0o600}


def test_a_later_start_finds_the_same_key(tmp_path: Path):
    folder = tmp_path / "keys"
    assert load_keys(folder).signing.public.kid == load_keys(folder).signing.public.kid


def test_the_key_id_is_the_thumbprint_of_rfc_7638(tmp_path: Path):
    published = load_keys(tmp_path / "keys").jwks()["keys"][0]
    # Section 3.2: the required members in the order of their names, without white space.
    text = f'{{"crv":"P-256","kty":"EC","x":"{published["x"]}","y":"{published["y"]}"}}'
    assert published["kid"] == base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def test_published_keys_have_public_members_only(tmp_path: Path):
    ring = load_keys(tmp_path / "keys")
    (published,) = ring.jwks()["keys"]
    assert set(published) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert (published["kty"], published["crv"], published["use"], published["alg"]) == ("EC", "P-256", "sig", "ES256")
    assert len(published["x"]) == len(published["y"]) == 43
    assert "PRIVATE" not in repr(ring)
    assert str(ring.signing.key.private_numbers().private_value) not in repr(ring)


def test_other_keys_in_the_folder_verify_and_do_not_sign(tmp_path: Path):
    folder = tmp_path / "keys"
    signing = load_keys(folder).signing.public.kid
    write_key(folder / "next.pem", ec.generate_private_key(ec.SECP256R1()))

    ring = load_keys(folder)

    assert ring.signing.public.kid == signing
    assert len(ring.public) == 2
    assert {key["kid"] for key in ring.jwks()["keys"]} == set(ring.public)


def test_a_rotation_by_renaming_keeps_old_tokens_valid(tmp_path: Path):
    folder = tmp_path / "keys"
    old = load_keys(folder).signing.public.kid
    (folder / "signing.pem").rename(folder / "retiring.pem")

    ring = load_keys(folder)

    assert ring.signing.public.kid != old
    assert old in ring.public


def test_gateways_of_one_process_that_start_at_once_agree_on_one_key(tmp_path: Path):
    folder, start = tmp_path / "keys", threading.Barrier(8)
    found: list[str] = []

    def gateway() -> None:
        start.wait()
        found.append(load_keys(folder).signing.public.kid)

    threads = [threading.Thread(target=gateway) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in folder.iterdir()] == ["signing.pem"]


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path):
    folder = tmp_path / "keys"
    # Each imports first and then waits for a line, so that all come to the folder at once.
    program = (
        "import sys; from pathlib import Path; from auth.keys import load_keys; print('ready', flush=True); "
        "sys.stdin.readline(); print(load_keys(Path(sys.argv[1])).signing.public.kid)"
    )
    command = [sys.executable, "-c", program, str(folder)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert found == {load_keys(folder).signing.public.kid + "\n"}


@pytest.mark.parametrize("readable", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_read_or_write_is_refused(tmp_path: Path, readable: int):
    folder = tmp_path / "keys"
    load_keys(folder)
    (folder / "signing.pem").chmod(readable)
    with pytest.raises(KeysInvalid, match="chmod 600"):
        load_keys(folder)


def test_a_key_of_somebody_else_is_refused():
    somebody = os.geteuid() + 1
    found = os.stat_result((stat.S_IFREG | 0o600, 1, 1, 1, somebody, somebody, 1, 0, 0, 0))
    with pytest.raises(KeysInvalid, match="somebody else"):
        require_private(Path("signing.pem"), found)


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path):
    folder = tmp_path / "keys"
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(KeysInvalid, match="chmod 700"):
        load_keys(folder)


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)], ids=["P-384", "RSA"]
)
def test_a_key_of_another_kind_is_refused(tmp_path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
    write_key(tmp_path / "signing.pem", key)
    with pytest.raises(KeysInvalid, match="P-256"):
        load_keys(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "signing.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeysInvalid, match="PEM"):
        load_keys(tmp_path)


def test_an_encrypted_key_is_refused(tmp_path: Path):
    write_key(tmp_path / "signing.pem", ec.generate_private_key(ec.SECP256R1()), password=b"of somebody")
    with pytest.raises(KeysInvalid, match="unencrypted"):
        load_keys(tmp_path)


def test_the_published_set_is_json(tmp_path: Path):
    ring = load_keys(tmp_path / "keys")
    assert json.loads(json.dumps(ring.jwks())) == ring.jwks()
