"""Dry runs: what a request would be read as, refused with a body that works, and nothing queued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from auth.grants import GrantSpec
from auth.limits import EVERYTHING, Bounds, set_limits
from auth.scopes import Scope
from gateway.dry_runs import EXAMPLE_CHARACTERS, asks_for_dry_run, understood, with_example
from gateway.submit_options import OptionInvalid
from model_store.catalog import CatalogVersion
from model_store.database import transaction
from model_store.signature import Signature, TensorSpec
from model_store.tables import State
from tests.dialect_kit import FLOATS, INTEGERS, TWO_INPUTS, signature_of
from tests.processes import Cluster
from tests.quiet_gateway import quiet_gateway
from tests.rights_kit import add_client, serve, token
from tests.serving import paused_workers
from workers.errors import InputInvalid
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract
from workers.protocols.dialects import GRAMMARS
from workers.protocols.received import received

ROWS = {"instances": [[1.0, 2.0], [3.0, -4.5]]}
DRY = {"validate_only": "true"}
INFER = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}
EXAMPLED = (Dialect.TENSORFLOW_SERVING, Dialect.OPEN_INFERENCE, Dialect.EXPLAIN, Dialect.CLASSIFY, Dialect.MLFLOW)


def newest_job(caller: httpx.Client) -> list[str]:
    """Its id: what earlier tests left behind may still run meanwhile."""
    return [job["id"] for job in caller.get("/v1/jobs", params={"limit": 1}).json()["jobs"]]


def available(signature: Signature) -> CatalogVersion:
    return CatalogVersion(3, State.AVAILABLE, None, None, signature, 8, 1, 0.001, 0)


def refused(signature: Signature, dialect: Dialect) -> InputInvalid:
    return with_example(InputInvalid("no"), "m", available(signature), Body(b"{}", dialect))


@pytest.mark.parametrize(
    ("path", "body", "dialect", "instances"),
    [
        ("/v1/models/times:predict", ROWS, "tensorflow_serving", 2),
        ("/v1/models/times/labels/stable:submit", ROWS, "tensorflow_serving", 2),
        ("/v1/models/times:explain", ROWS, "explain", 6),
        ("/v2/models/times/infer", INFER, "open_inference", 1),
    ],
    ids=["predict", "submit", "explain", "infer"],
)
def test_a_dry_run_says_how_a_request_is_read_while_nobody_works(
    serving: Cluster, caller: httpx.Client, path: str, body: dict[str, Any], dialect: str, instances: int
):
    before = newest_job(caller)
    with paused_workers(serving):
        answer = caller.post(path, params=DRY, json=body)
    version = "1" if "stable" in path else "2"
    assert (answer.status_code, answer.headers["sluice-model-version"]) == (200, version)
    count = 2 if "instances" in body else 1
    assert answer.json() == {
        "valid": True,
        "model": "times",
        "version": version,
        "dialect": dialect,
        "instances": instances,
        "inputs": [{"name": "x", "dtype": "float32", "shape": [count, 2]}],
    }
    assert newest_job(caller) == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/double:predict", {"instances": [[1.0, "two"]]}),
        ("/v1/models/double:submit", {"instances": [[1.0, 2.0, 3.0]]}),
        ("/v1/models/double:explain", {"instances": [[1.0, 2.0]], "explain": {"patch": -1}}),
        ("/v2/models/double/infer", {"inputs": []}),
    ],
    ids=["predict", "submit", "explain", "infer"],
)
def test_a_request_that_does_not_fit_is_refused_with_a_body_that_does(
    caller: httpx.Client, path: str, body: dict[str, Any]
):
    answer = caller.post(path, params=DRY, json=body)
    assert answer.status_code == 400
    told = answer.json()
    assert told["expected"] == [{"name": "x", "dtype": "float32", "shape": [None, 2]}]
    assert told["received"].keys() == body.keys()
    as_before = caller.post(path, json=body, headers={"prefer": "respond-async"})
    assert (as_before.status_code, as_before.json()) == (400, {"error": told["error"]})
    described = caller.get(as_before.links["service-desc"]["url"])
    assert (described.status_code, described.json()["info"]["version"]) == (200, "1")
    assert caller.post(path, params=DRY, json=told["example"]).status_code == 200
    assert caller.post(path, json=told["example"]).status_code in (200, 202)


def test_who_may_not_predict_may_not_try(serving: Cluster, caller: httpx.Client):
    stranger = serving.caller("times")
    for path in ("/v1/models/double:predict", "/v1/models/nothing:predict"):
        refused_as_unknown = stranger.post(path, params=DRY, json=ROWS)
        assert refused_as_unknown.status_code == 404
        assert set(refused_as_unknown.json()) == {"error"}
    assert httpx.post(f"{caller.base_url}/v1/models/double:predict", params=DRY, json=ROWS).status_code == 401
    without = serving.caller("double", scopes=[Scope.MODELS_READ])
    assert without.post("/v1/models/double:predict", params=DRY, json=ROWS).status_code == 403


@pytest.mark.parametrize("query", ["", "?a=1", "?validate_only=false", "?x=validate_only"])
def test_any_other_query_predicts(caller: httpx.Client, query: str):
    assert caller.post(f"/v1/models/double:predict{query}", json=ROWS).json()["predictions"] == [[2, 4], [6, -9]]


@pytest.mark.parametrize("query", [b"validate_only=TRUE", b"a=%31&validate_only=true", b"validate%5Fonly=true"])
def test_a_dry_run_is_one_however_its_query_is_written(query: bytes):
    assert asks_for_dry_run(query)


@pytest.mark.parametrize("value", ["yes", "", "1", "true&validate_only=false"])
def test_who_may_have_meant_a_dry_run_does_not_predict(value: str):
    with pytest.raises(OptionInvalid):
        asks_for_dry_run(f"validate_only={value}".encode())


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool", "string"])
@pytest.mark.parametrize("shape", [(None,), (None, 3), (None, 2, None), (2, 2), ()], ids=str)
@pytest.mark.parametrize("dialect", EXAMPLED, ids=lambda dialect: dialect.label)
def test_the_body_that_is_shown_is_one_that_the_dialect_takes(
    dtype: str, shape: tuple[int | None, ...], dialect: Dialect
):
    signature = signature_of(TensorSpec("x", dtype, shape))
    example = refused(signature, dialect).members.get("example")
    if example is None:
        assert dtype == "float16" or (dialect is Dialect.CLASSIFY and shape[:1] != (None,))
        return
    if dialect is Dialect.EXPLAIN and not signature.batched:
        return
    contract = Contract("m", 3, signature, 1000)
    request = GRAMMARS[dialect].parse(Body(json.dumps(example).encode(), dialect), contract)
    told = json.loads(understood("m", 3, dialect, request))
    assert told["inputs"] == [{"name": "x", "dtype": dtype, "shape": [1 if size is None else size for size in shape]}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"instances": [[1.0, 2.0, 3.0]]}', {"instances": "[1, 3] of Number"}),
        ('{"inputs": {"x": [1], "y": 2}, "top_k": true}', {"inputs": "Object with x, y", "top_k": "Boolean"}),
        (
            '{"instances": [["a"]], "b": [], "c": [{}]}',
            {"instances": "[1, 1] of String", "b": "[0]", "c": "[1] of Object"},
        ),
        ("[[null]]", "[1, 1] of Null"),
        ("instances", "9 bytes that are no JSON"),
        ("[" * 64 + "]" * 64, f"[{', '.join(['1'] * 63)}, 0]"),
    ],
    ids=["lists", "objects", "empty", "no-object", "no-json", "deep"],
)
def test_what_came_is_told_by_the_sizes_of_its_lists(text: str, told: object):
    assert received(Body(text.encode())) == told


def test_a_table_of_csv_is_not_called_no_json():
    assert received(Body(b"a,b\n1,2\n", Dialect.MLFLOW_CSV)) == "8 bytes of CSV"


def test_several_inputs_are_shown_as_rows_of_objects():
    assert refused(TWO_INPUTS, Dialect.TENSORFLOW_SERVING).members["example"] == {
        "instances": [{"size": [0.0, 0.0], "word": "text"}]
    }


def test_a_body_that_is_too_long_to_be_shown_is_somewhere_else():
    large = signature_of(TensorSpec("image", "float32", (None, 224, 224, 3)))
    for dialect in EXAMPLED:
        members = refused(large, dialect).members
        assert "example" not in members
        assert members["example_at"] == "/v1/models/m/versions/3/openapi.json"
    digit = refused(signature_of(TensorSpec("image", "float32", (None, 28, 28))), Dialect.TENSORFLOW_SERVING)
    assert 2000 < len(json.dumps(digit.members["example"])) <= EXAMPLE_CHARACTERS


@pytest.mark.usefixtures("one_day")
def test_a_dry_run_takes_no_quota_and_no_queue(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway:
        serve(gateway.parts, "line")
        client = add_client(gateway.parts, "limited", [Scope.PREDICT], [GrantSpec("line")])
        with transaction(gateway.parts.sessions) as session:
            set_limits(session, client, {EVERYTHING: Bounds(bytes_per_day=60, instances_per_day=3)})
        gateway.parts.snapshot.refresh()
        header = token(gateway.parts, client, [Scope.PREDICT])
        statuses = [
            gateway.http.post("/v1/models/line:predict", params=params, headers=header, json=ROWS).status_code
            for params in (DRY, DRY, DRY, {}, {})
        ]
    # There is no Redis: what is not dry is let in, charged and answered 503, and once more is too much.
    assert statuses == [200, 200, 200, 503, 429]
