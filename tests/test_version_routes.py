"""Versions over HTTP in an installation that serves: policies, warm-ups, labels' gates, roll-backs, and faults."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from model_store.database import transaction
from model_store.evaluations import Evaluation, keep_evaluation
from model_store.samples import Kind, StoredExample, keep, keep_example
from model_store.signature import Tensor
from model_store.tables import State
from tests.live_gateway import refused
from tests.processes import Cluster
from tests.queue_kit import wait_until
from tests.serving import paused_workers, submit
from tests.version_kit import administrator, publish, serve, states, wait_for_end, worker_settings_of
from workers.warm_up import warm_up


@pytest.fixture(scope="module")
def admin(serving: Cluster) -> httpx.Client:
    return administrator(serving)


@pytest.fixture
def model() -> str:
    """A name that no other test uses."""
    return f"m{secrets.token_hex(6)}"


def answer(admin: httpx.Client, model: str, path: str = "") -> tuple[str, list[list[float]]]:
    """The version that answers 1, 2 under an address, and its answer."""
    found = admin.post(f"/v1/models/{model}{path}:predict", json={"instances": [[1, 2]]})
    assert found.status_code == 200, found.text
    return found.headers["sluice-model-version"], found.json()["predictions"]


def done(answered: httpx.Response) -> dict[str, object]:
    assert answered.status_code == 200, answered.text
    found: dict[str, object] = answered.json()
    return found


def refresh(admin: httpx.Client, model: str, number: int) -> None:
    """Have the gateway look at what the test wrote to SQL."""
    admin.get(f"/admin/models/{model}/versions/{number}").raise_for_status()


def test_a_policy_lets_the_old_version_go_and_all_brings_it_back_warm(
    serving: Cluster, admin: httpx.Client, model: str
):
    serve(serving, model, 2.0, 3.0)
    address = f"/admin/models/{model}/version-policy"
    assert done(admin.get(address)) == {"latest": None, "all": True, "specific": None}
    found = done(admin.put(address, json={"latest": 1}))
    assert (found["latest"], found["restored"], found["leaving"], found["kept"]) == (1, [], [1], [])
    assert done(admin.get(address)) == {"latest": 1, "all": None, "specific": None}
    wait_for_end(serving.sessions, model, 1)
    gone = admin.post(f"/v1/models/{model}/versions/1:predict", json={"instances": [[1, 2]]})
    assert gone.status_code == 404
    found = done(admin.put(address, json={"all": True}))
    [came] = found["restored"]  # type: ignore[misc] # a list, as the gateway writes it
    assert came["version"] == 1
    assert came["seconds"] > 0
    assert "loaded it" in came["detail"]
    assert answer(admin, model, "/versions/1") == ("1", [[2.0, 4.0]])


def test_a_policy_says_what_stays_all_the_same(serving: Cluster, admin: httpx.Client, model: str):
    serve(serving, model, 2.0, 3.0)
    done(admin.put(f"/admin/models/{model}/labels/stable", json={"version": 1}))
    done(admin.put(f"/admin/models/{model}/traffic", json={"weights": {"1": 1, "2": 1}}))
    found = done(admin.put(f"/admin/models/{model}/version-policy", json={"latest": 1}))
    assert (found["leaving"], found["kept"]) == ([], [{"version": 1, "by": ["label stable", "traffic"]}])


@pytest.mark.parametrize(
    "body",
    [{}, {"latest": 0}, {"all": False}, {"latest": 1, "all": True}, {"specific": []}, {"specific": [0]}],
    ids=str,
)
def test_a_policy_is_one_of_three(serving: Cluster, admin: httpx.Client, model: str, body: dict[str, object]):
    serve(serving, model, 2.0)
    assert refused(admin.put(f"/admin/models/{model}/version-policy", json=body), 422, "request_invalid")


def test_a_policy_names_only_versions_that_there_are(serving: Cluster, admin: httpx.Client, model: str):
    serve(serving, model, 2.0)
    address = f"/admin/models/{model}/version-policy"
    assert refused(admin.put(address, json={"specific": [1, 7]}), 404, "model_not_found")
    assert done(admin.get(address))["all"] is True


def test_a_model_is_rolled_back_in_one_call_and_once_more_until_there_is_nothing_before(
    serving: Cluster, admin: httpx.Client, model: str
):
    serve(serving, model, 2.0, 3.0, 4.0)
    done(admin.put(f"/admin/models/{model}/version-policy", json={"latest": 1}))
    for number in (1, 2):
        wait_for_end(serving.sessions, model, number)
    for meant, factor in ((2, 3.0), (1, 2.0)):
        found = done(admin.post(f"/admin/models/{model}/rollback"))
        assert (found["version"], found["rolled_back"]) == (meant, meant + 1)
        assert [one["version"] for one in found["restored"]] == [meant]  # type: ignore[attr-defined] # a list
        assert answer(admin, model) == (str(meant), [[factor, 2 * factor]])
    assert refused(admin.post(f"/admin/models/{model}/rollback"), 409, "no_version_before")


def test_a_retired_version_comes_back_until_it_is_deleted(serving: Cluster, admin: httpx.Client, model: str):
    serve(serving, model, 2.0, 3.0)
    address = f"/admin/models/{model}/versions/2"
    assert done(admin.post(f"{address}/retire"))["state"] == "END"
    assert answer(admin, model)[0] == "1"
    assert done(admin.post(f"{address}/restore"))["state"] == "AVAILABLE"
    assert answer(admin, model) == ("2", [[3.0, 6.0]])
    done(admin.post(f"{address}/retire"))
    assert admin.delete(address).status_code == 204
    assert refused(admin.post(f"{address}/restore"), 404, "model_not_found")


def test_who_retires_the_only_one_that_the_policy_allows_gets_the_one_before(
    serving: Cluster, admin: httpx.Client, model: str
):
    serve(serving, model, 2.0, 3.0)
    done(admin.put(f"/admin/models/{model}/version-policy", json={"latest": 1}))
    done(admin.post(f"/admin/models/{model}/versions/2/retire"))
    assert answer(admin, model) == ("1", [[2.0, 4.0]])
    done(admin.post(f"/admin/models/{model}/versions/2/restore"))
    assert answer(admin, model) == ("2", [[3.0, 6.0]])
    assert refused(admin.post(f"/admin/models/{model}/versions/1/restore"), 409, "version_unwanted")


def test_jobs_that_wait_run_to_their_end_on_a_version_that_leaves(serving: Cluster, admin: httpx.Client, model: str):
    serve(serving, model, 2.0, 3.0)
    refresh(admin, model, 1)
    with paused_workers(serving):
        jobs = [submit(admin, f"{model}/versions/1", float(row), 1.0) for row in range(100)]
        retired = done(admin.post(f"/admin/models/{model}/versions/1/retire"))
        assert retired["state"] == "UNLOADING"
        assert refused(admin.delete(f"/admin/models/{model}/versions/1"), 409, "version_in_use")
        # A policy that changes meanwhile changes nothing for them.
        done(admin.put(f"/admin/models/{model}/version-policy", json={"latest": 1}))
        assert states(serving.sessions, model) == {1: "UNLOADING", 2: "AVAILABLE"}
        late = admin.post(f"/v1/models/{model}/versions/1:submit", json={"instances": [[1, 2]]})
        assert late.status_code == 404
    for row, job in enumerate(jobs):
        ended = admin.get(f"/v1/jobs/{job}", params={"wait": 30}).json()
        assert ended["state"] == "succeeded", ended
        assert admin.get(f"/v1/jobs/{job}/result").json() == {"predictions": [[2.0 * row, 2.0]]}
    wait_for_end(serving.sessions, model, 1)
    assert admin.delete(f"/admin/models/{model}/versions/1").status_code == 204


def test_a_label_moves_when_its_gates_are_passed_and_says_what_they_found(
    serving: Cluster, admin: httpx.Client, model: str
):
    serve(serving, model, 2.0, 2.000001)
    gates = {"golden": {}, "agreement": {"least": 1.0}, "latency": {"p99_ms": 20_000, "calls": 20}}
    address = f"/admin/models/{model}/labels/stable"
    shown = done(admin.put(f"{address}/gates", json=gates))
    assert shown == done(admin.get(f"{address}/gates"))
    first = done(admin.put(address, json={"version": 1}))
    assert [(one["gate"], one["passed"]) for one in first["gates"]] == [  # type: ignore[attr-defined] # a list
        ("golden", True), ("agreement", True), ("latency", True),
    ]  # fmt: skip
    tried = done(admin.put(address, json={"version": 2}, params={"dry_run": True}))
    assert (tried["dry_run"], tried["version"], tried["previous"]) == (True, 2, 1)
    assert done(admin.get(f"/admin/models/{model}/labels"))["labels"] == [
        {"model": model, "label": "stable", "version": 1, "previous": None}
    ]
    moved = done(admin.put(address, json={"version": 2}))
    golden, agreement, latency = moved["gates"]  # type: ignore[misc] # a list, as the gateway writes it
    assert golden["figures"]["instances"] == 3
    assert agreement["figures"] == {"instances": 3, "agreed": 3, "share": 1.0, "predecessor": 1}
    assert latency["figures"]["calls"] == 20
    assert 0 < latency["figures"]["p50_ms"] <= latency["figures"]["p99_ms"]


def give(serving: Cluster, model: str, kind: Kind, **arrays: Tensor) -> str:
    """Samples of the model; their digest."""
    path = serving.folder / f"{model}-{kind}.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type] # numpy's stub takes the names for its own options
    stored = serving.artifacts.add_file(path)
    with transaction(serving.sessions) as session:
        keep(
            session, model, kind, digest=stored.digest, size_bytes=stored.size_bytes,
            instances=len(next(iter(arrays.values()))), uploaded_by="t",
        )  # fmt: skip
    return stored.digest


@pytest.mark.parametrize(
    ("kinds", "figures"),
    [
        ((Kind.LABELLED,), {"instances": 100, "agreed": 100, "share": 1.0, "predecessor": 1}),
        ((Kind.LABELLED, Kind.INPUTS), {"instances": 512, "agreed": 256, "share": 0.5, "predecessor": 1}),
    ],
    ids=["labelled", "inputs"],
)
def test_versions_are_compared_on_what_was_uploaded(
    serving: Cluster, admin: httpx.Client, model: str, kinds: tuple[Kind, ...], figures: dict[str, float]
):
    # given two versions that agree on no golden sample, but on all labelled ones and half of what callers send
    serve(serving, model, 2.0, -3.0)
    told = {
        Kind.LABELLED: {"x": np.ones((100, 2), np.float32), "labels": np.zeros(100, np.int64)},
        Kind.INPUTS: {"x": np.array([[1, 1], [1, 2]] * 300, np.float32)},
    }
    for kind in kinds:
        give(serving, model, kind, **told[kind])
    if Kind.INPUTS not in kinds:
        # an example that came with the version that is tried decides nothing
        digest = give(serving, model, Kind.CALIBRATION, **told[Kind.INPUTS])
        with transaction(serving.sessions) as session:
            assert keep_example(session, model, 2, StoredExample(digest, 1, 600), "t")
    address = f"/admin/models/{model}/labels/stable"
    done(admin.put(address, json={"version": 1}))
    done(admin.put(f"{address}/gates", json={"golden": {}, "agreement": {"least": 0.1}}))
    # when the second is tried
    found = done(admin.put(address, json={"version": 2}, params={"dry_run": True}))
    # then at most so many of them decide
    golden, agreement = found["gates"]  # type: ignore[misc] # a list, as the gateway writes it
    assert golden["figures"]["instances"] == 3
    assert agreement["figures"] == figures
    assert f"uploaded ({kinds[-1]}) samples" in agreement["detail"]


def test_a_label_may_ask_for_an_evaluation_of_the_samples_that_there_are(
    serving: Cluster, admin: httpx.Client, model: str
):
    serve(serving, model, 2.0)
    digest = give(serving, model, Kind.LABELLED, x=np.ones((4, 2), np.float32), labels=np.zeros(4, np.int64))
    address = f"/admin/models/{model}/labels/stable"
    done(admin.put(f"{address}/gates", json={"golden": {}, "accuracy": {"least": 0.75}}))

    def accuracy(right: int, of: str) -> str:
        with transaction(serving.sessions) as session:
            keep_evaluation(session, model, 1, Evaluation(of, 4, right, 2, ()))
        return str(admin.put(address, json={"version": 1}, params={"dry_run": True}).json()["gates"][1]["detail"])

    refusal = admin.put(address, json={"version": 1}, params={"dry_run": True})
    assert refused(refusal, 409, "gates_not_passed")
    # Of every gate it is told what it found, also of those that passed.
    assert [(one["gate"], one["passed"]) for one in refusal.json()["gates"]] == [("golden", True), ("accuracy", False)]
    assert refusal.json()["gates"][1]["detail"] == f"no evaluation: sluice models evaluate {model} 1"
    assert "of samples that were replaced" in accuracy(4, "0" * 64)
    assert accuracy(2, digest) == "2 of 4 labelled samples were answered right"
    assert refused(admin.put(address, json={"version": 1}), 409, "gates_not_passed")
    assert accuracy(3, digest) == "3 of 4 labelled samples were answered right"
    assert done(admin.put(address, json={"version": 1}))["version"] == 1


def test_a_label_stays_where_a_gate_is_not_passed(serving: Cluster, admin: httpx.Client, model: str):
    serve(serving, model, 2.0, -3.0)
    wrong = publish(serving.sessions, serving.artifacts, serving.folder, model, 4.0, golden_factor=5.0)
    refresh(admin, model, 1)
    address = f"/admin/models/{model}/labels/stable"
    done(admin.put(address, json={"version": 1}))
    for number, gates, failed in (
        (2, {"golden": {}, "agreement": {}}, {"golden": True, "agreement": False}),
        (wrong, {"golden": {"absolute": 0.5}, "latency": {"p99_ms": 1e-6}}, {"golden": False, "latency": False}),
        (2, {"shadow": {"requests": 10}}, {"shadow": False}),
    ):
        done(admin.put(f"{address}/gates", json=gates))
        answered = admin.put(address, json={"version": number})
        assert refused(answered, 409, "gates_not_passed")
        assert {one["gate"]: one["passed"] for one in answered.json()["gates"]} == failed
        assert answer(admin, model, "/labels/stable")[0] == "1"
    # One rolls back to what served before whatever the gates say; and without gates it may go anywhere.
    assert admin.delete(f"{address}/gates").status_code == 204
    assert done(admin.put(address, json={"version": wrong}))["gates"] == []
    done(admin.put(f"{address}/gates", json={"shadow": {"requests": 10}}))
    assert done(admin.post(f"{address}/rollback"))["version"] == 1


def test_a_label_is_rolled_back_to_a_version_that_had_left(serving: Cluster, admin: httpx.Client, model: str):
    serve(serving, model, 2.0, 3.0)
    refresh(admin, model, 1)
    address = f"/admin/models/{model}/labels/stable"
    for number in (1, 2):
        done(admin.put(address, json={"version": number}))
    done(admin.put(f"/admin/models/{model}/version-policy", json={"latest": 1}))
    wait_for_end(serving.sessions, model, 1)
    found = done(admin.post(f"{address}/rollback"))
    assert (found["version"], found["previous"]) == (1, 2)
    assert [one["version"] for one in found["restored"]] == [1]  # type: ignore[attr-defined] # a list
    assert answer(admin, model, "/labels/stable") == ("1", [[2.0, 4.0]])
    assert done(admin.post(f"{address}/rollback"))["version"] == 2


def test_a_label_points_to_nothing_that_is_not_there(serving: Cluster, admin: httpx.Client, model: str):
    serve(serving, model, 2.0)
    address = f"/admin/models/{model}/labels/stable"
    assert refused(admin.put(address, json={"version": 9}), 404, "model_not_found")
    assert refused(admin.post(f"{address}/rollback"), 404, "label_not_found")
    assert refused(admin.put(f"/admin/models/{model}/labels/.x/gates", json={"golden": {}}), 422, "name_invalid")
    assert refused(admin.put(f"{address}/gates", json={}), 422, "request_invalid")


def test_of_two_moves_of_a_gated_label_at_once_each_is_made_or_told_of_the_other(
    serving: Cluster, admin: httpx.Client, model: str
):
    serve(serving, model, 2.0, 2.000001, 2.000002)
    refresh(admin, model, 1)
    address = f"/admin/models/{model}/labels/stable"
    done(admin.put(address, json={"version": 1}))
    done(admin.put(f"{address}/gates", json={"golden": {}, "latency": {"p99_ms": 20_000, "calls": 50}}))
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda number: admin.put(address, json={"version": number}), (2, 3)))
    codes = sorted(answered.status_code for answered in answers)
    assert codes in ([200, 200], [200, 409])
    lost = [answered for answered in answers if answered.status_code == 409]
    assert all(refused(answered, 409, "label_moved") for answered in lost)
    [label] = done(admin.get(f"/admin/models/{model}/labels"))["labels"]  # type: ignore[misc] # a list
    assert label["version"] in (2, 3)


def test_a_version_is_loaded_where_its_callers_go_before_it_serves(serving: Cluster, admin: httpx.Client, model: str):
    number = publish(serving.sessions, serving.artifacts, serving.folder, model, 2.0, warming=True)
    address, asked = f"/v1/models/{model}:predict", {"instances": [[1, 2]]}
    wait_until(lambda: admin.post(address, json=asked).status_code == 503)
    warmed = warm_up(serving.sessions, serving.artifacts, worker_settings_of(serving), model, number)
    assert warmed.slot is not None
    assert warmed.requests == 1
    assert states(serving.sessions, model) == {number: State.LOADING}


def test_without_a_worker_a_version_comes_back_cold(serving: Cluster, model: str):
    serve(serving, model, 2.0)
    settings = worker_settings_of(serving).model_copy(update={"pool": "nobody"})
    warmed = warm_up(serving.sessions, serving.artifacts, settings, model, 1)
    assert (warmed.slot, warmed.told) == (
        None, "not warmed up: no worker serves pool nobody; its first call loads it",
    )  # fmt: skip
