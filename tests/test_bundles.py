"""Bundles: what is in one, who gets it, what verifies it, and what does not pass for one."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from auth.audit_tables import AuditEntry
from auth.bundle_signatures import BundleInvalid, Fault, read_keys, verify
from auth.grants import ADMINISTRATION, GrantSpec
from auth.scopes import Scope
from model_store.database import transaction
from model_store.model_settings import Metadata, ModelSettings, replace_settings
from model_store.tables import Version
from sluice.cli import app
from tests.bundle_kit import ROWS, keys_of, members, packed, serve_doubled
from tests.live_gateway import refused
from tests.quiet_gateway import QuietGateway, quiet_gateway

PATH = "/admin/models/double/versions/1/bundle"
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    """With a version that has golden samples, class names, and one variant."""
    folder = tmp_path_factory.mktemp("gateway")
    with quiet_gateway(folder) as running:
        serve_doubled(running.parts.sessions, running.parts.artifacts, folder)
        with transaction(running.parts.sessions) as session:
            replace_settings(session, "double", ModelSettings(metadata=Metadata(class_names=("no", "yes"))))
        running.parts.snapshot.refresh()
        yield running


@pytest.fixture(scope="module")
def admin(gateway: QuietGateway) -> dict[str, str]:
    """The header of somebody who administers every model."""
    return gateway.headers("administrator", [Scope.MODELS_WRITE, Scope.CLIENTS_ADMIN])


@pytest.fixture(scope="module")
def bundle(gateway: QuietGateway, admin: dict[str, str]) -> bytes:
    answer = gateway.http.get(PATH, params={"variant": "onnx"}, headers=admin)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    assert 'filename="double-1-onnx.zip"' in answer.headers["content-disposition"]
    return answer.content


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bundle", "verify", *arguments], env={"COLUMNS": "200"})


def test_a_bundle_has_the_artifact_and_all_that_is_known_of_it(gateway: QuietGateway, bundle: bytes):
    files = members(bundle)

    with transaction(gateway.parts.sessions) as session:
        version = session.get_one(Version, ("double", 1))
    assert hashlib.sha256(files["model.onnx"]).hexdigest() == version.digest
    assert json.loads(files["signature.json"])["inputs"] == [{"name": "x", "dtype": "float32", "shape": [None, 2]}]
    assert json.loads(files["labels.json"]) == ["no", "yes"]
    parity = json.loads(files["parity.json"])
    assert parity["tolerance"] == {"absolute": 1e-6, "relative": 1e-4, "top1_floor": 2.0}
    assert parity["figures"]["name"] == "onnx"
    assert parity["environment"]["libraries"]["onnxruntime"]
    sums = dict(reversed(line.split("  ")) for line in files["SHA256SUMS"].decode().splitlines())
    assert sums == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in files.items()
        if name not in ("SHA256SUMS", "bundle.jws")
    }
    assert len(files["predict.py"].splitlines()) <= 30


def test_the_same_variant_gives_the_same_files_again(gateway: QuietGateway, admin: dict[str, str], bundle: bytes):
    # Without a variant it is the one that serves.
    again = members(gateway.http.get(PATH, headers=admin).content)
    assert {name: data for name, data in members(bundle).items() if name != "bundle.jws"} == {
        name: data for name, data in again.items() if name != "bundle.jws"
    }


def test_a_bundle_answers_where_only_its_runtime_and_numpy_are_asked_for(bundle: bytes, tmp_path: Path):
    unpacked(members(bundle), tmp_path)
    np.savez(tmp_path / "asked.npz", x=ROWS + 1)

    ended = run_bundle(tmp_path, "asked.npz", "answers.npz")

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"y": ((ROWS + 1) * 2).tolist()}
    with np.load(tmp_path / "answers.npz") as answers:
        assert answers["y"].tolist() == ((ROWS + 1) * 2).tolist()


def other_samples(files: Files) -> None:
    """Golden samples of another model, with sums that fit."""
    from model_store import golden

    replace_samples(files, golden.pack({"x": ROWS}, {"y": ROWS * np.float32(2.01)}))


def fewer_samples(files: Files) -> None:
    """An answer that numpy would stretch to the shape of the model's."""
    from model_store import golden

    replace_samples(files, golden.pack({"x": np.ones((2, 2), np.float32)}, {"y": np.full((1, 1), 2, np.float32)}))


def replace_samples(files: Files, samples: bytes) -> None:
    files["golden.npz"] = samples
    lines = [line for line in files["SHA256SUMS"].decode().splitlines() if not line.endswith("golden.npz")]
    sums = [*lines, f"{hashlib.sha256(files['golden.npz']).hexdigest()}  golden.npz"]
    files["SHA256SUMS"] = ("\n".join(sums) + "\n").encode()


def flipped(files: Files) -> None:
    files["model.onnx"] = files["model.onnx"][:-1] + bytes([files["model.onnx"][-1] ^ 1])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flipped, "model.onnx is not the file"),
        (other_samples, "y is not what the model answered"),
        (fewer_samples, "y is not what the model answered"),
    ],
    ids=["another_byte", "another_answer", "another_shape"],
)
def test_a_bundle_that_is_damaged_or_answers_otherwise_says_so_and_answers_nothing(
    bundle: bytes, tmp_path: Path, damage: Callable[[Files], None], said: str
):
    files = members(bundle)
    damage(files)
    unpacked(files, tmp_path)

    ended = run_bundle(tmp_path)

    assert ended.returncode == 1
    assert said in ended.stderr
    assert ended.stdout == ""


def unpacked(files: Files, folder: Path) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)


def run_bundle(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "predict.py", *arguments]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_a_bundle_says_what_arrays_it_takes(bundle: bytes, tmp_path: Path):
    files = members(bundle)
    unpacked(files, tmp_path)
    np.savez(tmp_path / "asked.npz", wrong=np.zeros((1, 2), np.float32))

    ended = run_bundle(tmp_path, "asked.npz")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("asked.npz has the arrays ['wrong'], but the model takes [")


def test_the_command_verifies_a_bundle_without_a_gateway(gateway: QuietGateway, bundle: bytes, tmp_path: Path):
    (tmp_path / "b.zip").write_bytes(bundle)
    (tmp_path / "keys.json").write_bytes(keys_of(gateway))

    good = command(str(tmp_path / "b.zip"), "--keys", str(tmp_path / "keys.json"))

    assert good.exit_code == 0, good.output
    assert "The bundle is genuine, and its 8 files are those that were signed." in good.output
    asked = command(str(tmp_path / "b.zip"), "--url", str(gateway.http.base_url), "--json")
    said = json.loads(asked.output)
    assert (said["model"], said["version"], said["variant"], said["issuer"]) == ("double", 1, "onnx", "sluice")
    assert "say whose keys" in str(command(str(tmp_path / "b.zip")).exception)


def added(files: Files) -> None:
    files["more.py"] = b"import os"


def removed(files: Files) -> None:
    del files["parity.json"]


def unsigned(files: Files) -> None:
    del files["bundle.jws"]


def forged(files: Files) -> None:
    header, _, signature = files["bundle.jws"].decode().split(".")
    claims = {"iss": "sluice", "iat": 1, "model": "m", "version": 1, "variant": "v", "upload_sha256": "", "files": {}}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    files["bundle.jws"] = f"{header}.{payload}.{signature}".encode()


def no_text(files: Files) -> None:
    files["bundle.jws"] = b"\xff" * 100


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (flipped, Fault.FILE_CHANGED),
        (other_samples, Fault.FILE_CHANGED),
        (added, Fault.OTHER_FILES),
        (removed, Fault.OTHER_FILES),
        (unsigned, Fault.MALFORMED),
        (forged, Fault.FORGED),
        (no_text, Fault.MALFORMED),
    ],
    ids=["another_byte", "other_samples", "a_file_more", "a_file_less", "no_signature", "another_manifest", "no_text"],
)
def test_what_was_changed_after_it_was_signed_is_found(
    gateway: QuietGateway, bundle: bytes, tmp_path: Path, change: Callable[[Files], None], fault: Fault
):
    files = members(bundle)
    change(files)
    assert fault_of(packed(files), gateway, tmp_path) is fault


def test_what_is_no_whole_zip_is_no_bundle(gateway: QuietGateway, bundle: bytes, tmp_path: Path):
    twice = bundle[: len(bundle) // 2]
    for data in (b"", b"PK\x03\x04", twice, bundle[:-30]):
        assert fault_of(data, gateway, tmp_path) is Fault.MALFORMED


def compressed(bundle: bytes, method: int) -> bytes:
    """Its files again, with the same names and contents."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in members(bundle).items():
            archive.writestr(name, data)
    return target.getvalue()


def moved(bundle: bytes, by: int) -> bytes:
    """The directory and what it says of places, where so many bytes were put before the first file."""
    end = bundle.rindex(b"PK\x05\x06")
    start = struct.unpack_from("<I", bundle, end + 16)[0]
    listed = bytearray(bundle[start:])
    at = 0
    while listed[at : at + 4] == b"PK\x01\x02":
        names, extra, said, place = *struct.unpack_from("<3H", listed, at + 28), at + 42
        struct.pack_into("<I", listed, place, struct.unpack_from("<I", listed, place)[0] + by)
        at += 46 + names + extra + said
    struct.pack_into("<I", listed, at + 16, start + by)
    return bundle[:start] + bytes(listed)


def hidden(bundle: bytes) -> bytes:
    """Another program before the others, of which the directory says nothing: who reads heads unpacks it."""
    alone = packed({"predict.py": b"import os"})
    entry = alone[: alone.index(b"PK\x01\x02")]
    return entry + moved(packed(members(bundle)), len(entry))


def otherwise(bundle: bytes) -> bytes:
    """The head before a file says another size than the directory does."""
    whole = bytearray(packed(members(bundle)))
    struct.pack_into("<II", whole, 18, 7, 7)
    return bytes(whole)


def with_nul(bundle: bytes) -> bytes:
    """A file whose name is another one's and a NUL and more: Python sees its beginning alone."""
    files = {"predict.py_.sh" if name == "predict.py" else name: data for name, data in members(bundle).items()}
    return packed(files).replace(b"predict.py_", b"predict.py\0")


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], Fault]] = {
    "bzip2": (lambda bundle: compressed(bundle, zipfile.ZIP_BZIP2), Fault.MALFORMED),
    "lzma": (lambda bundle: compressed(bundle, zipfile.ZIP_LZMA), Fault.MALFORMED),
    "a_hidden_file": (hidden, Fault.OTHER_FILES),
    "another_size": (otherwise, Fault.OTHER_FILES),
    "before": (lambda bundle: b"#!/bin/sh\n" + bundle, Fault.OTHER_FILES),
    "behind": (lambda bundle: bundle + b"PK", Fault.OTHER_FILES),
    "a_name_with_nul": (with_nul, Fault.OTHER_FILES),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_other_programs_would_unpack_the_same_files(gateway: QuietGateway, bundle: bytes, tmp_path: Path, hostile: str):
    change, fault = HOSTILE[hostile]
    assert fault_of(change(bundle), gateway, tmp_path) is fault


def test_a_bundle_that_was_packed_again_is_still_one(gateway: QuietGateway, bundle: bytes, tmp_path: Path):
    assert fault_of(compressed(bundle, zipfile.ZIP_DEFLATED), gateway, tmp_path) is None
    with zipfile.ZipFile(io.BytesIO(hidden(bundle))) as archive:  # which libraries that believe the directory take
        assert archive.testzip() is None


def fault_of(bundle: bytes, gateway: QuietGateway, folder: Path) -> Fault | None:
    (folder / "b.zip").write_bytes(bundle)
    (folder / "keys.json").write_bytes(keys_of(gateway))
    ended = command(str(folder / "b.zip"), "--keys", str(folder / "keys.json"))
    if ended.exit_code == 0:
        return None
    assert isinstance(ended.exception, BundleInvalid), ended.output
    return ended.exception.fault


def test_no_token_and_no_receipt_passes_for_a_bundles_signature(gateway: QuietGateway, admin: dict[str, str]):
    known = read_keys(json.loads(keys_of(gateway)))
    with pytest.raises(BundleInvalid) as raised:
        verify(admin["authorization"].removeprefix("Bearer "), known)
    assert raised.value.fault is Fault.OTHER_KIND
    signed = gateway.parts.keys.bundles.sign({"iss": "sluice", "iat": 1, "client_id": "cli_a"})
    answer = gateway.http.get("/v1/jobs", headers={"authorization": f"Bearer {signed}"})
    assert refused(answer, 401, "invalid_token")


def test_weights_are_for_those_who_administer_the_model(gateway: QuietGateway):
    user = gateway.headers("user", [Scope.PREDICT, Scope.MODELS_READ])
    assert refused(gateway.http.get(PATH, headers=user), 404, "model_not_found")
    scopeless = gateway.headers("scopeless", [Scope.PREDICT])
    assert refused(gateway.http.get(PATH, headers=scopeless), 403, "insufficient_scope")


def test_an_administrator_of_the_model_gets_it_and_the_audit_log_says_so(gateway: QuietGateway):
    from auth import grants

    client_id, secret = gateway.client("exporter", [Scope.MODELS_READ])
    with transaction(gateway.parts.sessions) as session:
        grants.set_grants(session, client_id, [GrantSpec("double", actions=ADMINISTRATION)])
    gateway.parts.snapshot.refresh()
    header = {"authorization": f"Bearer {gateway.token(client_id, secret)}"}

    assert gateway.http.get(PATH, headers=header).status_code == 200

    with transaction(gateway.parts.sessions) as session:
        [entry] = session.query(AuditEntry).filter_by(identity=client_id, act="get_bundle").all()
        assert (entry.model, entry.version, entry.outcome) == ("double", 1, "done")


def test_what_cannot_be_exported_says_why(gateway: QuietGateway, admin: dict[str, str], tmp_path: Path):
    missing = gateway.http.get(PATH, params={"variant": "litert"}, headers=admin)
    assert refused(missing, 404, "variant_not_found")
    assert "there are: onnx" in missing.json()["detail"]
    assert refused(gateway.http.get(PATH.replace("1", "9"), headers=admin), 404, "model_not_found")
    serve_doubled(gateway.parts.sessions, gateway.parts.artifacts, tmp_path, "older")
    with transaction(gateway.parts.sessions) as session:
        session.get_one(Version, ("older", 1)).golden = None
    gateway.parts.snapshot.refresh()
    without = gateway.http.get(PATH.replace("double", "older"), headers=admin)
    assert refused(without, 409, "golden_missing")
    assert "/admin/models/older/versions/1/prepare" in without.json()["detail"]


def test_an_artifact_that_is_damaged_is_not_begun_to_be_sent(gateway: QuietGateway, admin: dict[str, str]):
    parts = gateway.parts
    with transaction(parts.sessions) as session:
        path = parts.artifacts.path(session.get_one(Version, ("double", 1)).digest)
    right = path.read_bytes()
    path.chmod(0o600)
    try:
        path.write_bytes(right[:-1] + b"x")
        assert refused(gateway.http.get(PATH, headers=admin), 500, "artifact_corrupt")
    finally:
        path.write_bytes(right)


def test_keys_of_other_kinds_in_a_set_are_passed_over(gateway: QuietGateway):
    listed = json.loads(keys_of(gateway))["keys"]
    receipts = gateway.http.get("/.well-known/receipt-keys.json").json()["keys"]
    assert list(read_keys({"keys": [*receipts, *listed]})) == [key["kid"] for key in listed]
    for document in ({}, {"keys": {}}, {"keys": [{"crv": "Ed25519", "x": "AA"}]}):
        with pytest.raises(BundleInvalid):
            read_keys(document)
