"""Traffic splits: which version a call by the bare name goes to, for whom, and as long as it serves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from auth.audit_tables import AuditEntry
from auth.grants import Action, GrantSpec
from auth.scopes import Scope
from gateway.access import Asked, explain
from gateway.admission import Caller
from model_store import registry
from model_store.catalog import Catalog
from model_store.database import transaction
from model_store.errors import ModelNotFound
from model_store.tables import State
from model_store.traffic import Split, Traffic, chosen, in_force
from tests.gate import Gate, catalog
from tests.processes import Cluster, wait_for
from tests.queue_kit import doubling_model, serve_model
from tests.quiet_gateway import QuietGateway, quiet_gateway
from tests.rights_kit import add_client, serve, token
from tests.serving import ended

MODEL = "parted"
TRAFFIC = f"/admin/models/{MODEL}/traffic"
BODY = {"instances": [[1.0, 2.0]]}
NOBODY: list[tuple[bytes, bytes]] = []


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[QuietGateway]:
    """With versions 1 to 3 of the model, all AVAILABLE, and the labels `stable` (3) and `next` (3)."""
    with quiet_gateway(tmp_path) as made:
        serve(made.parts, MODEL, 3, ["stable", "next"])
        yield made


def split_over(shares: Mapping[int, float], sticky: str | None = None) -> Catalog:
    """The model `mnist` with AVAILABLE versions 1 to 4 and this split."""
    found = catalog(dict.fromkeys(range(1, 5), State.AVAILABLE), {"stable": 1})
    split = in_force(Traffic({str(number): weight for number, weight in shares.items()}, sticky), range(1, 5), {})
    return Catalog({"mnist": replace(found.models["mnist"], split=split)})


def versions_of(gate: Gate, caller: Caller, headers: list[tuple[bytes, bytes]] = NOBODY) -> set[int]:
    """What 60 calls by the bare name get."""
    return {gate.admission.found(caller, Action.PREDICT, "mnist", headers=headers).version.number for _ in range(60)}


def administrator(gateway: QuietGateway, *grants: GrantSpec) -> dict[str, str]:
    scopes = [Scope.MODELS_READ, Scope.MODELS_WRITE]
    made = add_client(gateway.parts, f"admin-{len(gateway.parts.snapshot.rights.clients)}", scopes, grants)
    return token(gateway.parts, made, scopes)


def whole(*actions: Action) -> GrantSpec:
    return GrantSpec(MODEL, actions=frozenset(actions))


def test_a_subject_gets_the_same_version_from_every_process_and_release():
    shares = ((3, 90.0), (4, 10.0))
    found = [chosen(shares, "mnist", b"client\0cli_%d" % number) for number in range(40)]
    assert [number for number, version in enumerate(found) if version == 4] == [6, 8, 17, 20, 24, 32]


def test_subjects_and_chance_keep_to_the_weights():
    shares = ((3, 70.0), (4, 20.0), (5, 10.0))
    for subjects in ([b"%d" % number for number in range(5000)], [None] * 5000):
        counted = Counter(chosen(shares, "mnist", subject) for subject in subjects)
        assert all(abs(counted[number] / 5000 - weight / 100) < 0.04 for number, weight in shares)


@given(st.binary(max_size=20), st.floats(0.1, 100), st.floats(0.1, 100), st.floats(0.1, 100))
def test_a_subject_moves_to_no_version_but_the_one_whose_share_grows(
    subject: bytes, stable: float, other: float, growth: float
):
    before = chosen(((1, stable), (2, other)), "mnist", subject)
    after = chosen(((1, stable), (2, other + growth)), "mnist", subject)
    assert after in (before, 2)


def test_a_split_is_over_what_serves_and_labels_mean_where_they_point_now():
    traffic = Traffic({"1": 30, "stable": 20, "3": 50, "4": 0, "gone": 7}, "client")
    labels = {"stable": 1}
    assert in_force(traffic, {1, 3, 4}, labels) == Split(((3, 50.0), (1, 50.0)), "client")
    assert in_force(traffic, {1, 4}, labels) == Split(((1, 50.0),), "client")
    assert in_force(traffic, {4}, labels) is None


def test_a_bare_name_means_the_targets_and_nothing_else_does(gate: Gate):
    gate.snapshot.catalog = split_over({1: 50, 3: 50})
    caller = gate.with_grants(GrantSpec("mnist"))
    assert versions_of(gate, caller) == {1, 3}
    assert gate.admission.target(caller, Action.PREDICT, "mnist", 4).number == 4
    assert gate.admission.found(caller, Action.PREDICT, "mnist", label="stable", headers=NOBODY).version.number == 1
    # What is asked about the model itself is answered alike each time: about the largest share.
    gate.snapshot.catalog = split_over({1: 60, 3: 40})
    assert {gate.admission.target(caller, Action.METADATA, "mnist").number for _ in range(20)} == {1}


def test_a_client_gets_only_versions_that_it_may_use(gate: Gate):
    gate.snapshot.catalog = split_over({1: 1, 3: 98, 4: 1})
    assert versions_of(gate, gate.with_grants(GrantSpec("mnist", version=1))) == {1}
    both = gate.with_grants(GrantSpec("mnist", version=1), GrantSpec("mnist", version=4))
    assert versions_of(gate, both) == {1, 4}
    only = gate.with_grants(GrantSpec("mnist", version=2))
    with pytest.raises(ModelNotFound, match=r"Latest\(mnist\)"):
        versions_of(gate, only)
    # The same is what the explanation of rights says.
    said = explain(gate.snapshot.catalog, only.rights, Asked(Action.PREDICT, "mnist"), gate.snapshot.now)
    assert (said.allowed, said.rule) == (False, "no grant")


def test_a_version_whose_grant_ends_is_no_target_any_more(gate: Gate):
    gate.snapshot.catalog = split_over({1: 50, 3: 50})
    end = gate.snapshot.now + 1000
    caller = gate.with_grants(GrantSpec("mnist", version=1), GrantSpec("mnist", version=3, expires_at=end))
    assert versions_of(gate, caller) == {1, 3}
    gate.snapshot.now = end
    assert versions_of(gate, caller) == {1}


def test_callers_stay_with_what_they_got_by_client_or_by_header(gate: Gate):
    caller = gate.with_grants(GrantSpec("mnist"))
    gate.snapshot.catalog = split_over({1: 50, 3: 50}, "client")
    assert len(versions_of(gate, caller)) == 1
    gate.snapshot.catalog = split_over({1: 50, 3: 50}, "header:X-User")
    found = [versions_of(gate, caller, [(b"x-user", b"%d" % user)]) for user in range(20)]
    assert all(len(versions) == 1 for versions in found)
    assert set().union(*found) == {1, 3}
    # Without it, or with two of them, the client decides.
    assert len(versions_of(gate, caller)) == 1
    assert versions_of(gate, caller, [(b"x-user", b"1"), (b"x-user", b"2")]) == versions_of(gate, caller)


def test_a_split_is_set_shown_and_removed(gateway: QuietGateway):
    admin = administrator(gateway, whole(Action.METADATA, Action.LABEL))
    none = {"model": MODEL, "weights": None, "sticky": None, "shares": [{"version": 3, "share": 1.0}]}
    assert gateway.http.get(TRAFFIC, headers=admin).json() == none
    body = {"weights": {"1": 30, "stable": 10}, "sticky": "header:X-User"}
    shown = {
        "model": MODEL, "weights": {"1": 30.0, "stable": 10.0}, "sticky": "header:X-User",
        "shares": [{"version": 1, "share": 0.75}, {"version": 3, "share": 0.25}],
    }  # fmt: skip
    assert gateway.http.put(TRAFFIC, headers=admin, json=body).json() == shown
    assert gateway.http.get(TRAFFIC, headers=admin).json() == shown
    assert gateway.parts.snapshot.catalog.models[MODEL].split == Split(((1, 30.0), (3, 10.0)), "header:X-User")
    assert gateway.http.delete(TRAFFIC, headers=admin).status_code == 204
    assert gateway.http.get(TRAFFIC, headers=admin).json() == none
    with transaction(gateway.parts.sessions, write=False) as session:
        acts = session.execute(select(AuditEntry.act, AuditEntry.detail).where(AuditEntry.act.contains("traffic")))
        entries = {row.act: row.detail for row in acts}
    assert set(entries) == {"replace_traffic", "remove_traffic"}
    assert '"weights":"1=30 stable=10"' in entries["replace_traffic"]


REFUSED: list[tuple[dict[str, object], int, str]] = [
    ({"weights": {}}, 422, "request_invalid"),
    ({"weights": {"1": 0}}, 422, "traffic_invalid"),
    ({"weights": {"1": -1}}, 422, "request_invalid"),
    ({"weights": {"a b": 1}}, 422, "request_invalid"),
    ({"weights": {"1": 1}, "sticky": "cookie"}, 422, "request_invalid"),
    ({"weights": {"1": 1}, "sticky": "header:"}, 422, "request_invalid"),
    ({"weights": {str(number): 1 for number in range(1, 18)}}, 422, "request_invalid"),
    ({"weights": {"9": 1}}, 409, "version_not_available"),
    ({"weights": {"nosuch": 1}}, 404, "label_not_found"),
]


def test_what_is_no_split_is_refused(gateway: QuietGateway):
    admin = administrator(gateway, whole(Action.LABEL))
    for body, status, code in REFUSED:
        answer = gateway.http.put(TRAFFIC, headers=admin, json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), body
    assert gateway.parts.snapshot.catalog.models[MODEL].split is None


def test_who_may_see_one_version_only_does_not_learn_of_the_others(gateway: QuietGateway):
    reader = administrator(gateway, GrantSpec(MODEL, version=1))
    for path in ("traffic", "shadow", "shadow/report", "canary"):
        answer = gateway.http.get(f"/admin/models/{MODEL}/{path}", headers=reader)
        assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


def test_a_target_that_leaves_gives_its_share_to_the_others_and_the_last_one_stays(gateway: QuietGateway):
    admin = administrator(gateway, whole(Action.LABEL, Action.METADATA, Action.RETIRE))
    http = gateway.http
    assert http.put(TRAFFIC, headers=admin, json={"weights": {"1": 50, "2": 50}}).status_code == 200
    assert http.post(f"/admin/models/{MODEL}/versions/1/retire", headers=admin).status_code == 200
    assert http.get(TRAFFIC, headers=admin).json()["shares"] == [{"version": 2, "share": 1.0}]
    gone = http.put(TRAFFIC, headers=admin, json={"weights": {"1": 1}})
    assert (gone.status_code, gone.json()["code"]) == (409, "version_not_available")
    assert gone.json()["detail"] == "version 1 is not AVAILABLE but END: restore it first"
    last = http.post(f"/admin/models/{MODEL}/versions/2/retire", headers=admin)
    assert (last.status_code, last.json()["code"]) == (409, "version_in_use")
    # A label that a split names is kept as well.
    assert http.put(TRAFFIC, headers=admin, json={"weights": {"next": 1, "2": 1}}).status_code == 200
    kept = http.delete(f"/admin/models/{MODEL}/labels/next", headers=admin)
    assert (kept.status_code, kept.json()["code"]) == (409, "version_in_use")


def test_predictions_submits_and_files_go_where_the_split_says(serving: Cluster, tmp_path: Path):
    # given two versions that can be told apart, and a split over them
    model = "split-live"
    for factor in (2.0, 3.0):
        serve_model(serving.sessions, serving.artifacts, doubling_model(tmp_path / f"{factor}.onnx", factor), model)
    caller = serving.caller(model, scopes=frozenset(Scope))
    caller.put(f"/admin/models/{model}/traffic", json={"weights": {"1": 50, "2": 50}}).raise_for_status()

    # when it is called by its bare name, then both answer, and each answer says which
    seen = set()
    for _ in range(40):
        answer = caller.post(f"/v1/models/{model}:predict", json=BODY)
        number = int(answer.headers["sluice-model-version"])
        assert answer.json()["predictions"] == [[number + 1.0, 2 * (number + 1.0)]]
        seen.add(number)
    assert seen == {1, 2}
    assert {caller.post(f"/v1/models/{model}/versions/1:predict", json=BODY).headers["sluice-model-version"]} == {"1"}

    # and a caller that is known by a header stays, with whatever it does
    sticky = {"weights": {"1": 50, "2": 50}, "sticky": "header:X-User"}
    caller.put(f"/admin/models/{model}/traffic", json=sticky).raise_for_status()
    for user in ("ann", "bob", "eve", "joe"):
        who = {"x-user": user}
        number = caller.post(f"/v1/models/{model}:predict", json=BODY, headers=who).headers["sluice-model-version"]
        infer = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
        again = caller.post(f"/v2/models/{model}/infer", json=infer, headers=who)
        assert (again.headers["sluice-model-version"], again.json()["model_version"]) == (number, number)
        job = caller.post(f"/v1/models/{model}:submit", json=BODY, headers=who)
        assert ended(caller, job.json()["id"])["version"] == number
        file = caller.post(f"/v1/models/{model}:batch", params={"format": "jsonl"}, content="[1, 2]\n", headers=who)
        assert file.headers["sluice-model-version"] == number


def test_a_version_that_is_retired_under_a_split_answers_no_more(serving: Cluster, tmp_path: Path):
    model = "split-leaving"
    for factor in (2.0, 3.0):
        serve_model(serving.sessions, serving.artifacts, doubling_model(tmp_path / f"{factor}.onnx", factor), model)
    caller = serving.caller(model, scopes=frozenset(Scope))
    caller.put(f"/admin/models/{model}/traffic", json={"weights": {"1": 1, "2": 1}}).raise_for_status()
    with transaction(serving.sessions) as session:
        assert registry.retire(session, model, 2)

    def asked() -> set[str]:
        answers = [caller.post(f"/v1/models/{model}:predict", json=BODY) for _ in range(10)]
        assert {answer.status_code for answer in answers} == {200}
        return {answer.headers["sluice-model-version"] for answer in answers}

    wait_for(lambda: asked() == {"1"}, 10)
