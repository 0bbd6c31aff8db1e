"""Receipts: what proves a result offline, what does not, and that none is taken for a token, nor a token for one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from auth import signing_keys
from auth.compact import prebuilt, sign
from auth.errors import KeysUnavailable
from auth.job_receipts import TYPE, Fault, JobReceipt, ReceiptInvalid, ReceiptIssuer, compare, read_history, verify
from auth.keys import ALGORITHM
from auth.scopes import Scope
from model_store.database import transaction
from sluice.cli import app
from tests.audit_kit import new_key
from tests.forgery import decoded
from tests.live_gateway import refused
from tests.processes import Cluster
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway
from tests.serving import client_id_of, ended

BODY = b'{ "instances": [[1.0, 2.0],   [3, 4]] }'
RECEIPT = JobReceipt(
    job="Zk0o3rVxQ1uYt5pWc8sLd2Ea", client_id="cli_a", model="double", version=1, upload_sha256="a" * 64,
    artifact_sha256="b" * 64, variant="onnx", runtime="onnxruntime 1.2.3", platform="Linux x86_64", worker="w1",
    input_sha256="c" * 64, output_sha256="d" * 64, output_bytes=9, created_at="2026-01-02T03:04:05.006Z",
    started_at="2026-01-02T03:04:05.006Z", finished_at="2026-01-02T03:04:05.006Z", attempts=1,
)  # fmt: skip


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path) as running:
        yield running


def issuer_of(gateway: QuietGateway) -> ReceiptIssuer:
    return ReceiptIssuer(gateway.parts.keys, issuer="sluice")


def fault_of(text: str, gateway: QuietGateway) -> Fault | None:
    """What the keys that the gateway publishes say to a receipt."""
    try:
        verify(text, read_history(gateway.http.get("/.well-known/receipt-keys.json").json()))
    except ReceiptInvalid as invalid:
        return invalid.fault
    return None


def signed(gateway: QuietGateway, claims: dict[str, object], kind: str) -> str:
    """Whatever it says, signed by the gateway's own key."""
    key = gateway.parts.keys.ring.signing
    return sign(claims, prebuilt(key.key, ALGORITHM), {"typ": kind, "kid": key.public.kid}, ALGORITHM)


def rotate(gateway: QuietGateway, *, compromised: bool = False) -> None:
    parts = gateway.parts
    with transaction(parts.sessions) as session:
        signing_keys.rotate(session, parts.settings.master_keys, publish_seconds=2, compromised=compromised)
    parts.snapshot.refresh()


def test_a_jobs_receipt_names_what_ran_and_the_very_bytes_that_went_in_and_came_out(
    serving: Cluster, caller: httpx.Client
):
    headers = {"content-type": "application/json"}
    job = caller.post("/v1/models/double:submit", content=BODY, headers=headers).json()["id"]
    document = ended(caller, job)
    answer = caller.get(f"/v1/jobs/{job}/result").content
    receipt = caller.get(f"/v1/jobs/{job}/receipt")
    keys = httpx.get(f"{caller.base_url}/.well-known/receipt-keys.json").json()

    assert receipt.headers["content-type"].startswith("application/jwt")
    said = verify(receipt.text, read_history(keys)).receipt
    assert verify(str(document["receipt"]), read_history(keys)).receipt == said
    assert (said.job, said.client_id, said.model, said.version) == (job, client_id_of(caller), "double", 1)
    assert said.input_sha256 == hashlib.sha256(BODY).hexdigest()
    assert (said.output_sha256, said.output_bytes) == (hashlib.sha256(answer).hexdigest(), len(answer))
    served = set(serving.artifacts.digests())
    assert {said.upload_sha256, said.artifact_sha256} <= served
    assert said.variant == "onnx"
    assert said.runtime.startswith("onnxruntime ")
    assert said.worker == "w0"
    times = [document[name] for name in ("created_at", "started_at", "finished_at")]
    assert [said.created_at, said.started_at, said.finished_at] == times
    assert said.attempts == 1


def test_what_has_no_result_has_no_receipt(caller: httpx.Client):
    job = caller.post("/v1/models/table:submit", json={"instances": [77]}).json()["id"]
    assert ended(caller, job)["receipt"] is None
    assert refused(caller.get(f"/v1/jobs/{job}/receipt"), 409, "job_ended")


def test_another_input_another_output_and_a_forged_signature_are_told_apart(gateway: QuietGateway):
    text = issuer_of(gateway).sign(RECEIPT)
    assert fault_of(text, gateway) is None
    compare(RECEIPT, input_sha256="c" * 64, output_sha256="d" * 64)
    for digests, fault in (
        ({"input_sha256": "d" * 64}, Fault.OTHER_INPUT),
        ({"output_sha256": "c" * 64}, Fault.OTHER_OUTPUT),
    ):
        with pytest.raises(ReceiptInvalid) as raised:
            compare(RECEIPT, **digests)
        assert raised.value.fault is fault
    header, _, signature = text.split(".")
    other = issuer_of(gateway).sign(replace(RECEIPT, output_sha256="e" * 64)).split(".")
    assert fault_of(".".join((header, other[1], signature)), gateway) is Fault.FORGED
    assert fault_of(f"{text[:-1]}{'B' if text[-1] != 'B' else 'C'}"[:-4] + "AAAA", gateway) is Fault.FORGED
    for nothing in ("", "a.b", text[:-90], f"{text}.x", "é"):
        assert fault_of(nothing, gateway) is Fault.MALFORMED


def test_a_key_that_the_gateway_never_had_is_unknown(gateway: QuietGateway):
    class Foreign:
        class ring:  # noqa: N801 - stands where a ring is
            signing = new_key()

    assert fault_of(ReceiptIssuer(Foreign, issuer="sluice").sign(RECEIPT), gateway) is Fault.KEY_UNKNOWN  # type: ignore[arg-type] # it has what is asked for


def test_no_receipt_is_a_token_and_no_token_a_receipt(gateway: QuietGateway):
    client_id, secret = gateway.client("caller", [Scope.JOBS])
    token = gateway.token(client_id, secret)
    receipt = issuer_of(gateway).sign(replace(RECEIPT, client_id=client_id))
    assert fault_of(token, gateway) is Fault.OTHER_KIND
    assert refused(gateway.http.get("/v1/jobs", headers=bearer(receipt)), 401, "invalid_token")
    assertion = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": receipt,
    }
    assert gateway.http.post("/oauth/token", data=assertion).status_code == 401
    # Nor does one become the other by its claims: the header says what a text was signed as.
    said = {kind: json.loads(decoded(text.split(".")[1])) for kind, text in (("token", token), ("receipt", receipt))}
    as_receipt, as_token = signed(gateway, said["token"], TYPE), signed(gateway, said["receipt"], "at+jwt")
    assert refused(gateway.http.get("/v1/jobs", headers=bearer(as_receipt)), 401, "invalid_token")
    assert fault_of(as_token, gateway) is Fault.OTHER_KIND
    assert fault_of(signed(gateway, said["receipt"], TYPE), gateway) is None
    assert gateway.http.get("/v1/jobs", headers=bearer(signed(gateway, said["token"], "at+jwt"))).status_code == 200


def test_receipts_outlive_the_key_that_signed_them_unless_it_was_revoked(gateway: QuietGateway):
    text = issuer_of(gateway).sign(RECEIPT)
    rotate(gateway)
    with transaction(gateway.parts.sessions) as session:
        # As after an hour: the old key verifies no token any more.
        for row in signing_keys.all_keys(session)[1:]:
            row.verifies_until, row.sealed = row.signs_from + 1, None
    rotate(gateway)
    kid = json.loads(decoded(text.split(".")[0]))["kid"]
    assert kid not in gateway.http.get("/.well-known/jwks.json").text
    assert fault_of(text, gateway) is None
    with transaction(gateway.parts.sessions) as session:
        session.get_one(signing_keys.StoredKey, kid).verifies_until = 1_000_000
    rotate(gateway)
    assert fault_of(text, gateway) is Fault.KEY_OUT_OF_TIME


def test_a_compromised_keys_receipts_prove_nothing_any_more(gateway: QuietGateway):
    text = issuer_of(gateway).sign(RECEIPT)
    rotate(gateway, compromised=True)
    assert fault_of(text, gateway) is Fault.KEY_REVOKED
    # For a moment no key signs: a job is shown all the same, without its receipt.
    with pytest.raises(KeysUnavailable):
        issuer_of(gateway).sign(RECEIPT)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["receipt", "verify", *arguments], env={"COLUMNS": "200"})


def test_the_command_verifies_without_a_gateway(gateway: QuietGateway, tmp_path: Path):
    files = {"in": b"what went in", "out": b"what came out"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    receipt = replace(RECEIPT, input_sha256=digests["in"], output_sha256=digests["out"])
    text, file = issuer_of(gateway).sign(receipt), str(tmp_path / "receipt")
    keys = tmp_path / "keys.json"
    keys.write_bytes(gateway.http.get("/.well-known/receipt-keys.json").content)
    known = ("--keys", str(keys))

    for written in (text, json.dumps({"id": "x", "receipt": text})):
        Path(file).write_text(written)
        good = run(file, *known, "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"))
        assert good.exit_code == 0, good.output
        assert "genuine, and the input and the output are the same" in good.output
    assert json.loads(run(file, "--url", str(gateway.http.base_url), "--json").output)["model"] == "double"
    assert "another input" in str(run(file, *known, "--input", str(tmp_path / "out")).exception)
    assert "another output" in str(run(file, *known, "--output", str(tmp_path / "in")).exception)
    keys.write_text('{"keys": []}')
    assert "not among these keys" in str(run(file, *known).exception)
    assert "say whose keys" in str(run(file).exception)
