"""A SavedModel with several signatures, uploaded, prepared and called: over REST and gRPC, waited for and as a job."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from auth import clients
from auth.grants import ADMINISTRATION, GrantSpec, set_grants
from model_store.database import transaction
from model_store.signature import Tensors
from sluice.listening_ports import free_port
from tests.conftest import RedisServer
from tests.grpc_kit import connected, token_of
from tests.grpc_serving_kit import ServingCaller, examples, predict_request, read, refusal, request_of, spec_of
from tests.processes import Cluster, cluster, wait_for
from tests.serving import ended
from tests.test_savedmodel_uploads import ALLOWED, zipped
from tests.test_savedmodel_uploads import saved_models as saved_models

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

MODEL = "several"
# TensorFlow is imported by four processes, one after the other.
PREPARED_SECONDS = 240
ROWS = [[1.0, 2.0], [0.5, -1.0]]
WORDS = {"word": np.array([b"a", b"b"], object), "number": np.array([1, 2], np.int64)}
CALLERS, ROUNDS = 6, 15


@pytest.fixture(scope="module")
def installation(
    redis_server: RedisServer, saved_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """With the SavedModel as a version that serves."""
    folder = tmp_path_factory.mktemp("signatures")
    with cluster(folder, redis_server.url, f"sqlite:///{folder / 'sluice.db'}") as made:
        made.start_gateway(grpc_port=free_port(), upload_formats=ALLOWED)
        made.start_worker()
        made.start("prepare-worker", worker_name="prepares", upload_formats=ALLOWED)
        made.wait_for_slots(2)
        admin = made.caller()
        with transaction(made.sessions) as session:
            [row] = clients.page(session)
            set_grants(session, row.id, [GrantSpec("*", actions=ADMINISTRATION), GrantSpec("*")])
        wait_for(lambda: admin.get("/admin/models/double/versions/1").status_code == 200, 10)
        archive = zipped(saved_models / MODEL, folder / MODEL)
        uploaded = admin.put(f"/admin/models/{MODEL}/versions", content=archive.read_bytes())
        assert uploaded.status_code == 202, uploaded.text
        wait_for(lambda: version_of(admin)["state"] not in ("START", "LOADING"), PREPARED_SECONDS)
        assert version_of(admin)["state"] == "AVAILABLE", version_of(admin)["error"]
        # On a busy machine it serves cold, and is loaded by its first call.
        wait_for(lambda: predict(admin, "", instances=ROWS).status_code == 200, PREPARED_SECONDS)
        yield made


@pytest.fixture(scope="module")
def admin(installation: Cluster) -> httpx.Client:
    return installation.clients[0]


@pytest.fixture(scope="module")
def serving_caller(installation: Cluster, admin: httpx.Client) -> Iterator[ServingCaller]:
    with connected(installation.grpc_addresses[0], token_of(admin)) as made:
        yield ServingCaller(made)


def version_of(admin: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = admin.get(f"/admin/models/{MODEL}/versions/1").raise_for_status().json()
    return found


def predict(caller: httpx.Client, name: str, **more: object) -> httpx.Response:
    asked = {"signature_name": name} if name else {}
    return caller.post(f"/v1/models/{MODEL}:predict", json={**asked, **more})


def test_rest_answers_by_the_signature_that_is_named(admin: httpx.Client):
    doubled, tripled = [[2.0, 4.0], [1.0, -2.0]], [[3.0, 6.0], [1.5, -3.0]]
    for name in ("", "serving_default", "again"):
        assert predict(admin, name, instances=ROWS).json() == {"predictions": doubled}
    assert predict(admin, "tripled", instances=ROWS).json() == {"predictions": tripled}
    words = [{"word": "a", "number": 1}, {"word": "b", "number": 2}]
    answer = predict(admin, "joined", instances=words)
    assert answer.json() == {"predictions": [{"next": 2, "text": "a-1"}, {"next": 3, "text": "b-2"}]}
    assert answer.headers["sluice-model-version"] == "1"
    classify = {"signature_name": "classify", "examples": [{"x": row} for row in ROWS]}
    assert admin.post(f"/v1/models/{MODEL}:classify", json=classify).json() == {
        "results": [[["left", 1.5], ["right", 2.5]], [["left", 1.0], ["right", -0.5]]]
    }


def test_what_is_not_there_is_refused_in_tensorflow_servings_words(admin: httpx.Client, serving_caller: ServingCaller):
    for name in ("drawn", "unknown"):
        answer = predict(admin, name, instances=ROWS)
        told = f'Serving signature name: "{name}" not found in signature def'
        assert (answer.status_code, answer.json()["error"].startswith(told)) == (400, True)
        spec = spec_of(MODEL, signature_name=name)
        code, text = refusal(lambda spec=spec: serving_caller.predict(spec, {"x": np.array(ROWS, np.float32)}))
        assert (code, text.startswith(told)) == ("INVALID_ARGUMENT", True)
    # It reads as the signature that is named, not as the default.
    assert "keys must be equal to: number,word" in predict(admin, "joined", instances=[{"x": [1.0, 2.0]}]).text


def test_a_job_is_of_the_signature_that_is_named(admin: httpx.Client, serving_caller: ServingCaller):
    body = {"signature_name": "joined", "inputs": {"word": ["a"], "number": [9]}}
    submitted = admin.post(f"/v1/models/{MODEL}:submit", json=body)
    assert submitted.status_code == 202, submitted.text
    job = submitted.json()["id"]
    assert ended(admin, job)["state"] == "succeeded"
    assert admin.get(f"/v1/jobs/{job}/result").json() == {"outputs": {"next": [10], "text": ["a-9"]}}
    refused = admin.post(f"/v1/models/{MODEL}:submit", json={**body, "signature_name": "unknown"})
    assert refused.status_code == 400
    spec = spec_of(MODEL, signature_name="tripled")
    answer = serving_caller.predict(spec, {"x": np.array(ROWS, np.float32)}, ("prefer", "respond-async"))
    place = answer.trailers["location"]
    assert ended(admin, place.removeprefix("/v1/jobs/"))["state"] == "succeeded"
    assert admin.get(f"{place}/result").content.endswith((np.array(ROWS, np.float32) * 3).tobytes())


def test_grpc_answers_by_the_signature_that_is_named(serving_caller: ServingCaller):
    tripled = serving_caller.predict(spec_of(MODEL, signature_name="tripled"), {"x": np.array(ROWS, np.float32)})
    assert read(tripled.message.outputs["y"]).tolist() == [[3.0, 6.0], [1.5, -3.0]]
    assert tripled.message.model_spec.signature_name == "tripled"
    joined = serving_caller.predict(spec_of(MODEL, signature_name="joined"), WORDS).message
    assert list(joined.outputs["text"].string_val) == [b"a-1", b"b-2"]
    classify = request_of(
        "Classification",
        model_spec=spec_of(MODEL, signature_name="classify"),
        input=examples({"x": [1.0, 2.5]}),
    )
    [found] = serving_caller.call("Classify", classify).message.result.classifications
    assert [(one.label, one.score) for one in found.classes] == [("left", 1.5), ("right", 3.0)]


def test_one_call_infers_by_several_signatures(serving_caller: ServingCaller):
    tasks = [
        {"model_spec": spec_of(MODEL, signature_name=name), "method_name": "tensorflow/serving/classify"}
        for name in ("classify", "serving_default", "tripled")
    ]
    several = request_of("MultiInference", tasks=tasks, input=examples({"x": [1.0, 2.5]}))
    results = serving_caller.call("MultiInference", several).message.results
    assert [one.model_spec.signature_name for one in results] == ["classify", "serving_default", "tripled"]
    scores = [[row.score for row in one.classification_result.classifications[0].classes] for one in results]
    assert scores == [[1.5, 3.0], [2.0, 5.0], [3.0, 7.5]]


def test_the_metadata_and_the_administrators_view_list_every_signature(
    admin: httpx.Client, serving_caller: ServingCaller
):
    listed = {"serving_default", "classification", "again", "tripled", "joined", "classify"}
    document = admin.get(f"/v1/models/{MODEL}/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert document.keys() == listed
    assert document["joined"]["inputs"]["word"]["dtype"] == "DT_STRING"
    asked = request_of("GetModelMetadata", model_spec=spec_of(MODEL), metadata_field=["signature_def"])
    packed = serving_caller.call("GetModelMetadata", asked).message.metadata["signature_def"]
    for name in listed:
        assert name.encode() in packed.value
    shown = version_of(admin)
    assert [one["name"] for one in shown["further_signatures"]] == ["classify", "joined", "tripled"]
    assert {row["name"] for row in shown["report"]["signatures"]} >= {"drawn", "single", "failing"}
    assert "Signature joined" in admin.get(f"/admin/models/{MODEL}/versions/1/card").text
    described = admin.get(f"/v1/models/{MODEL}/openapi.json").json()
    assert "by the `signature_name` `joined` takes" in described["info"]["description"]


def test_calls_of_different_signatures_at_once_each_get_their_own_numbers(
    admin: httpx.Client, serving_caller: ServingCaller
):
    wrong: list[object] = []

    def ask(number: int) -> None:
        with httpx.Client(base_url=admin.base_url, headers=admin.headers, timeout=60) as caller:
            for turn in range(ROUNDS):
                wrong.extend(unlike(caller, serving_caller, float(100 * number + turn), (number + turn) % 4))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def unlike(caller: httpx.Client, serving_caller: ServingCaller, value: float, kind: int) -> list[object]:
    """What one call answered, where that is not what its signature computes of this value."""
    if kind == 0:
        answer = predict(caller, "", instances=[[value, 0.0]])
        return [] if answer.json() == {"predictions": [[2 * value, 0.0]]} else [answer.text]
    if kind == 1:
        answer = predict(caller, "tripled", instances=[[value, 0.0]])
        return [] if answer.json() == {"predictions": [[3 * value, 0.0]]} else [answer.text]
    if kind == 2:
        tensors: Tensors = {"x": np.array([[value, 1.0]], np.float32)}
        request = predict_request(spec_of(MODEL, signature_name="tripled"), tensors)
        found = read(serving_caller.call("Predict", request).message.outputs["y"]).tolist()
        return [] if found == [[3 * value, 3.0]] else [found]
    answer = predict(caller, "joined", inputs={"word": ["n"], "number": [int(value)]})
    right = {"outputs": {"next": [int(value) + 1], "text": [f"n-{int(value)}"]}}
    return [] if json.loads(answer.text) == right else [answer.text]
