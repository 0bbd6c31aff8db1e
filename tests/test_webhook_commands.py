"""`sluice webhooks verify` and what it stands on: messages that were received are checked without a gateway."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from sluice.received_webhook import TOLERANCE_SECONDS, WebhookInvalid, verify
from tests.command_line import sluice
from tests.system import plain_environment
from workers.webhooks import secrets as webhook_secrets

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
OTHER = "whsec_MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTE="
BODY = json.dumps({"type": "webhook.test"}).encode()
NOW = 1_800_000_000


def message(body: bytes = BODY, at: int = NOW, secret: str = SECRET, name: str = "msg_1") -> dict[str, str]:
    """The fields of a message as the reference library signs it."""
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    signature = Webhook(secret).sign(name, moment, body.decode())
    return {"Webhook-Id": name, "Webhook-Timestamp": str(at), "Webhook-Signature": signature}


def test_what_the_reference_library_signed_is_genuine_also_among_other_signatures():
    fields = message()
    several = fields | {"Webhook-Signature": f"v1a,AAAA v1,AAAA {fields['Webhook-Signature']}"}

    assert verify(SECRET, fields, BODY, now=NOW) == "msg_1"
    assert verify(SECRET, several, BODY, now=NOW) == "msg_1"


@pytest.mark.parametrize(
    ("fields", "body", "secret", "now"),
    [
        (message(), BODY + b" ", SECRET, NOW),
        (message() | {"Webhook-Id": "msg_2"}, BODY, SECRET, NOW),
        (message() | {"Webhook-Timestamp": str(NOW + 1)}, BODY, SECRET, NOW),
        (message(), BODY, OTHER, NOW),
        (message(), BODY, "whsec_?", NOW),
        (message() | {"Webhook-Signature": webhook_secrets.signature([b""], "msg_1", NOW, BODY)}, BODY, "", NOW),
        (message(), BODY, SECRET, NOW + TOLERANCE_SECONDS + 1),
        (message(), BODY, SECRET, NOW - TOLERANCE_SECONDS - 1),
        (message() | {"Webhook-Timestamp": "soon"}, BODY, SECRET, NOW),
        (message() | {"Webhook-Signature": ""}, BODY, SECRET, NOW),
        ({name: value for name, value in message().items() if name != "Webhook-Id"}, BODY, SECRET, NOW),
    ],
    ids=[
        "body", "id", "timestamp", "secret", "no secret", "empty secret", "old", "future", "no timestamp",
        "no signature", "no id",
    ],
)  # fmt: skip
def test_what_is_not_genuine_is_refused(fields: dict[str, str], body: bytes, secret: str, now: int):
    with pytest.raises(WebhookInvalid):
        verify(secret, fields, body, now=now)


@given(st.binary(max_size=200), st.integers(0, 10**12 - 1), st.binary(min_size=24, max_size=64))
def test_what_gateways_sign_is_genuine(body: bytes, timestamp: int, secret: bytes):
    signature = webhook_secrets.signature([b"x" * 32, secret], "msg_1", timestamp, body)
    fields = {"webhook-id": "msg_1", "webhook-timestamp": str(timestamp), "webhook-signature": signature}

    assert verify(webhook_secrets.text_of(secret), fields, body, now=timestamp) == "msg_1"


@pytest.mark.parametrize(("changed", "code", "said"), [(b"", 0, "msg_1 is genuine"), (b" ", 1, "no signature fits")])
def test_the_command_says_whether_files_are_genuine(tmp_path: Path, changed: bytes, code: int, said: str):
    lines = [f"{name}: {value}" for name, value in message(at=int(time.time())).items()]
    (tmp_path / "headers").write_text("\r\n".join(["Host: a", *lines]))
    (tmp_path / "body").write_bytes(BODY + changed)

    files = (str(tmp_path / "headers"), str(tmp_path / "body"))
    ended = sluice("webhooks", "verify", *files, environment=plain_environment() | {"SLUICE_WEBHOOK_SECRET": SECRET})

    assert ended.returncode == code
    assert said in ended.stdout + ended.stderr
