"""Requests that cannot be answered: each is refused with its reason, in its path's shape, and makes no trouble."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from auth.keys import SigningKey
from auth.scopes import Scope
from auth.signing_keys import SigningKeys
from auth.tokens import Issuer
from model_store.database import transaction
from model_store.sealing import SealingKeys
from tests.forgery import FixedKeys, signing_key
from tests.processes import MASTER_KEY, Cluster
from tests.serving import client_id_of

PREDICTION_BYTES, OTHER_BYTES = 16 * 1024**2, 1024**2
PIECE = b" " * 65_536
VERBS = ("predict", "submit")
OURS = ("/v1/jobs", "/v1/jobs/unknown", "/admin/models", "/admin/clients")

# Model, body, and what the refusal says: the place and what was expected there.
BODIES: dict[str, tuple[str, bytes, str]] = {
    "nothing": ("double", b"", "The document is empty"),
    "half a document": ("double", b'{"instances": [[1, 2]', "at offset: 21"),
    "two documents": ("double", b'{"instances": [[1, 2]]} {}', "at offset: 24"),
    "no object": ("double", b"[[1, 2]]", "Is not object"),
    "neither rows nor columns": ("double", b'{"rows": [[1, 2]]}', "Missing 'inputs' or 'instances' key"),
    "rows and columns": ("double", b'{"instances": [[1, 2]], "inputs": [[1, 2]]}', "only one of"),
    "another signature": ("double", b'{"signature_name": "train", "instances": [[1, 2]]}', "signature name"),
    "an empty list": ("double", b'{"instances": []}', "No values in 'instances' array"),
    "an empty row": ("double", b'{"instances": [[]]}', "at instances[0]; input 'x' takes float of shape [-1,2]"),
    "too long a row": ("double", b'{"instances": [[1, 2, 3]]}', "size: 3 at level: 1 expected size: 2 at instances[0]"),
    "ragged rows": ("double", b'{"instances": [[1, 2], [3]]}', "at instances[1]; input 'x' takes float"),
    "too flat": ("double", b'{"instances": [1, 2]}', "Expecting a list but got Number 1 at instances[0]"),
    "too deep": ("double", b'{"instances": [[[1], [2]]]}', "at instances[0][0]"),
    "text for numbers": ("double", b'{"instances": [["1", 2]]}', "is not of expected type: float at instances[0][0]"),
    "null": ("double", b'{"instances": [[1, null]]}', "at instances[0][1]"),
    "a fraction for an integer": ("whole", b'{"instances": [[1, 2, 2.5]]}', "expected type: int64 at instances[0][2]"),
    "NaN for an integer": ("whole", b'{"instances": [[1, NaN, 2]]}', "expected type: int64 at instances[0][1]"),
    "an integer out of range": ("whole", b'{"instances": [[1, 2, 9223372036854775808]]}', "out of the range of int64"),
    "a bool for an integer": ("whole", b'{"instances": [[1, 2, true]]}', "at instances[0][2]"),
    "an unknown input": ("double", b'{"instances": [{"z": [1, 2]}]}', "keys must be equal to: x"),
    "a missing column": ("double", b'{"inputs": {"z": [[1, 2]]}}', "Missing named input: x"),
    "a lone surrogate": ("double", b'{"instances": [["\\ud800", 1]]}', "at instances[0][0]"),
    "a lone surrogate as a key": ("double", b'{"instances": [{"\\ud800": 1}]}', "keys must be equal to: x"),
    "invalid UTF-8": ("double", b'{"instances": [["\xff", 1]]}', "Invalid UTF-8 at offset: 17"),
    "UTF-16": ("double", '{"instances": [[1, 2]]}'.encode("utf-16"), "Invalid UTF-8 at offset: 0"),
    "a key twice": ("double", b'{"instances": [[1, 2]], "instances": [[3, 4]]}', "given twice"),
    "deep nesting": ("double", b"[" * 100_000, "nested deeper than 64 levels"),
    "deep objects": ("double", b'{"instances":' * 10_000, "nested deeper than 64 levels"),
    "a number of a million digits": ("double", b'{"instances": [[%s, 1]]}' % (b"7" * 1_000_000), "too many digits"),
    "100,000 wrong elements": ("double", json.dumps({"instances": ["x"] * 100_000}).encode(), "at instances[0]"),
    "100,000 wrong rows": ("double", json.dumps({"instances": [["x", "y"]] * 100_000}).encode(), "at instances[0][0]"),
    "too many instances": ("double", json.dumps({"instances": [[1, 2]] * 100_001}).encode(), "takes at most 100000"),
    "a long wrong text": ("double", json.dumps({"instances": [["x" * 100_000, 1]]}).encode(), "at instances[0][0]"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_does_not_fit_is_refused_with_the_place_and_no_job(caller: httpx.Client, case: str, verb: str):
    model, body, said = BODIES[case]
    refused = caller.post(f"/v1/models/{model}:{verb}", content=body)
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/json")
    assert list(refused.json()) == ["error"]
    assert said in refused.json()["error"]
    assert len(refused.content) < 1024
    assert "location" not in refused.headers


def test_refused_bodies_became_no_jobs(serving: Cluster):
    caller = serving.caller("double")
    for _, body, _ in BODIES.values():
        caller.post("/v1/models/double:predict", content=body, headers={"Prefer": "respond-async"})
    assert caller.get("/v1/jobs").json() == {"jobs": [], "next_page_token": None}
    assert caller.post("/v1/models/double:predict", json={"instances": [[1, 2]]}).status_code == 200


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("encoding", ["zstd", "br", "gzip, deflate", "gzip, identity"])
def test_a_body_packed_in_another_way_is_refused(caller: httpx.Client, verb: str, encoding: str):
    body, headers = {"instances": [[1, 2]]}, {"content-encoding": encoding}
    refused = caller.post(f"/v1/models/double:{verb}", json=body, headers=headers)
    text = "send the body with Content-Encoding gzip or deflate, or without"
    assert (refused.status_code, refused.json()) == (415, {"error": text})


def pieces(size: int) -> Iterator[bytes]:
    for _ in range(size // len(PIECE)):
        yield PIECE


LARGE = {
    "/v1/models/double:predict": "POST",
    "/v1/models/double:submit": "POST",
    "/v1/jobs/unknown/cancel": "POST",
    "/admin/clients": "POST",
    "/admin/models/double/labels/large": "PUT",
}


@pytest.mark.parametrize("path", [path for path in LARGE if not path.endswith("cancel")])
def test_a_body_over_the_limit_is_refused_though_nobody_announced_its_length(caller: httpx.Client, path: str):
    headers = {"content-type": "application/json"}
    refused = caller.request(LARGE[path], path, content=pieces(limit_of(path) + len(PIECE)), headers=headers)
    assert too_large(refused)


@pytest.mark.parametrize("path", LARGE)
def test_a_body_announced_over_the_limit_is_refused_before_it_is_read(caller: httpx.Client, path: str):
    head = f"{LARGE[path]} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {caller.headers['authorization']}\r\n"
    with socket.create_connection((caller.base_url.host, caller.base_url.port or 80), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: {limit_of(path) + 1}\r\n\r\n".encode())
        received = b""
        while more := connection.recv(65_536):
            received += more
    first, body = received.split(b"\r\n\r\n", 1)
    lines = first.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    request = httpx.Request(LARGE[path], caller.base_url.join(path))
    assert too_large(httpx.Response(int(lines[0].split()[1]), headers=headers, content=body, request=request))


def test_who_sends_all_of_a_large_body_before_it_reads_is_told_that_it_is_too_large(caller: httpx.Client):
    path = "/v1/models/double:predict"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {caller.headers['authorization']}\r\n"
    size = 2 * limit_of(path)
    with socket.create_connection((caller.base_url.host, caller.base_url.port or 80), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode() + bytes(size))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")


def limit_of(path: str) -> int:
    return PREDICTION_BYTES if path.startswith("/v1/models/") else OTHER_BYTES


def too_large(refused: httpx.Response) -> bool:
    path = refused.request.url.path
    text = f"the body is larger than {limit_of(path)} bytes"
    shape = {"error": text} if path.startswith("/v1/models/") else {**problem(413, "body_too_large"), "detail": text}
    assert refused.status_code == 413
    assert refused.headers["connection"] == "close"
    assert refused.json().items() >= shape.items()
    return True


def test_a_body_of_exactly_the_limit_is_read(caller: httpx.Client):
    body = b'{"instances": [[1, 2]]}'
    answer = caller.post("/v1/models/double:predict", content=body + b" " * (PREDICTION_BYTES - len(body)))
    assert (answer.status_code, answer.json()) == (200, {"predictions": [[2.0, 4.0]]})


def problem(status: int, code: str) -> dict[str, object]:
    return {"type": "about:blank", "status": status, "code": code}


def signing_key_of(serving: Cluster) -> SigningKey:
    keys = SigningKeys(SealingKeys.parse(MASTER_KEY))
    with transaction(serving.sessions, write=False) as session:
        keys.read(session)
    return keys.ring.signing


def token(serving: Cluster, caller: httpx.Client, **changes: object) -> str:
    """A token of the caller's own client, signed with the gateway's key unless `key` is another."""
    key = changes.pop("key", None) or signing_key_of(serving)
    issued_at = changes.pop("issued_at", None)
    issuer = Issuer(FixedKeys(key), **{"issuer": "sluice", "audience": "sluice", "seconds": 900, **changes})
    return issuer.issue(client_id_of(caller), frozenset(Scope), issued_at=issued_at)[0]


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, 'Bearer realm="sluice"'),
        ("Basic Y2xpOnNscw==", 'Bearer realm="sluice"'),
        ("Bearer nonsense", 'Bearer realm="sluice", error="invalid_token"'),
        ("expired", 'Bearer realm="sluice", error="invalid_token"'),
        ("wrong audience", 'Bearer realm="sluice", error="invalid_token"'),
        ("wrong issuer", 'Bearer realm="sluice", error="invalid_token"'),
        ("unknown key", 'Bearer realm="sluice", error="invalid_token"'),
    ],
)
def test_without_a_valid_token_there_is_a_challenge_and_nothing_else(
    serving: Cluster, caller: httpx.Client, authorization: str | None, challenge: str
):
    changes: dict[str, dict[str, object]] = {
        "expired": {"issued_at": int(time.time()) - 1000},
        "wrong audience": {"audience": "somebody-else"},
        "wrong issuer": {"issuer": "somebody-else"},
        "unknown key": {"key": signing_key()},
    }
    if authorization in changes:
        authorization = f"Bearer {token(serving, caller, **changes[authorization])}"
    headers = {} if authorization is None else {"authorization": authorization}
    body = {"instances": [[1, 2]]}
    with httpx.Client(base_url=caller.base_url, headers=headers) as stranger:
        answers = [stranger.post(f"/v1/models/{path}", json=body) for path in ("double:predict", "double:submit")]
        answers += [stranger.get(path) for path in ("/v1/models", "/v1/models/double", *OURS)]
    for refused in answers:
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, challenge)
        if refused.request.url.path.startswith("/v1/models"):
            assert list(refused.json()) == ["error"]
        else:
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.json()["status"] == 401
    assert len({json.dumps(refused.json().get("error")) for refused in answers if "error" in refused.json()}) == 1


def test_a_token_made_like_the_refused_ones_but_right_is_accepted(serving: Cluster, caller: httpx.Client):
    headers = {"authorization": f"Bearer {token(serving, caller)}"}
    assert httpx.get(f"{caller.base_url}/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["{}:predict", "{}:submit", "{}/versions/1:predict", "{}/labels/stable:predict"])
def test_a_model_without_a_grant_is_answered_as_one_that_does_not_exist(serving: Cluster, path: str):
    with httpx.Client(base_url=serving.gateways[0], headers=serving.caller("double").headers) as caller:
        headers = {"x-request-id": "the-same-one"}
        answers = [
            caller.post(f"/v1/models/{path.format(name)}", json={"instances": [[1, 2]]}, headers=headers)
            for name in ("times", "gone1")
        ]
    granted_not, unknown = answers
    assert granted_not.status_code == unknown.status_code == 404
    assert granted_not.headers.multi_items() == unknown.headers.multi_items()
    assert granted_not.content.replace(b"times", b"gone1") == unknown.content
    assert unknown.json()["error"].startswith("Servable not found for request: ")


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("double/versions/50:predict", 404, "Servable not found for request: Specific(double, 50)"),
        ("unknown:predict", 404, "Servable not found for request: Latest(unknown)"),
        ("double/labels/canary:predict", 400, "Unrecognized servable version label: canary"),
        ("double/versions/99999999999999999999:predict", 400, None),
        ("double/versions/one:predict", 400, None),
        ("double:guess", 400, None),
        ("no%20name:predict", 400, None),
        ("%00:predict", 400, None),
    ],
)
def test_an_address_of_nothing_is_refused_in_tensorflow_servings_words(
    caller: httpx.Client, path: str, status: int, said: str | None
):
    refused = caller.post(f"/v1/models/{path}", json={"instances": [[1, 2]]})
    assert (refused.status_code, list(refused.json())) == (status, ["error"])
    assert said is None or refused.json()["error"] == said


@pytest.mark.parametrize("path", ["unready:predict", "unready/versions/1:predict", "unready:submit"])
def test_a_version_in_preparation_is_for_later(caller: httpx.Client, path: str):
    refused = caller.post(f"/v1/models/{path}", json={"instances": [[1, 2]]})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert list(refused.json()) == ["error"]


@pytest.fixture(scope="module")
def administrator(serving: Cluster) -> httpx.Client:
    return serving.caller(scopes=frozenset(Scope))


NOT_JSON = {
    "NaN": b'{"version": NaN}',
    "infinity": b'{"version": 1e400}',
    "a lone surrogate": b'{"version": "\\ud800"}',
    "a lone surrogate as a key": b'{"\\ud800": 1, "version": 1}',
    "a lone surrogate alone": b'"\\ud800"',
    "half a document": b'{"version": ',
    "invalid UTF-8": b'{"version": "\xff"}',
    "deep nesting": b"[" * 100_000,
    "a number of 5,000 digits": b'{"version": %s}' % (b"7" * 5000),
    "100,000 wrong elements": json.dumps({"version": ["x"] * 100_000}).encode(),
    "a long key": b'{"version": 1, "%s": 1}' % (b"k" * 10_000),
    "10,000 keys": json.dumps({f"k{number}": number for number in range(10_000)}).encode(),
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_an_administrators_body_that_does_not_fit_is_a_short_problem(administrator: httpx.Client, case: str):
    headers = {"content-type": "application/json"}
    refused = administrator.put("/admin/models/double/labels/bad", content=NOT_JSON[case], headers=headers)
    assert refused.status_code in (400, 422)
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json().items() >= problem(refused.status_code, "request_invalid").items()
    assert len(refused.content) < 1024


def test_a_long_list_of_wrong_grants_is_a_short_problem(administrator: httpx.Client):
    for grants in ([1, None, {"model": ""}, {"model": "\ud800"}] * 250, [1] * 100_000):
        body = json.dumps({"name": "long-list", "grants": grants})
        refused = administrator.post("/admin/clients", content=body, headers={"content-type": "application/json"})
        assert (refused.status_code, refused.json()["code"]) == (422, "request_invalid")
        assert len(refused.content) < 1024


def test_after_all_that_the_gateway_has_failed_at_nothing(caller: httpx.Client):
    # Last in this file: whatever else it was, a refusal was never an internal error. (A model's own failure is one.)
    lines = [line for line in caller.get("/metrics").text.splitlines() if line.startswith("sluice_requests_total")]
    assert any('outcome="invalid"' in line for line in lines)
    assert [line for line in lines if 'outcome="failed"' in line and 'model="table"' not in line] == []
