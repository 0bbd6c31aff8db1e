"""Admission: which version a caller means and may use; what no grant covers does not exist."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from auth.grants import USE, Action, GrantSpec
from auth.rights import Rights
from gateway import admission as admission_module
from gateway.admission import Caller
from model_store.errors import LabelNotFound, ModelNotFound, SluiceError, VersionNotReady
from model_store.tables import State
from tests.gate import Gate, catalog, client, granting


@pytest.fixture
def gate() -> Gate:
    return Gate()


def target(
    gate: Gate, caller: Caller, version: int | None = None, label: str | None = None, model: str = "mnist"
) -> int:
    return gate.admission.target(caller, Action.PREDICT, model, version, label).number


def refusal(
    gate: Gate, caller: Caller, version: int | None = None, label: str | None = None, model: str = "mnist"
) -> str:
    """Class, status and text of the refusal, with the model's name taken out."""
    with pytest.raises(SluiceError) as refused:
        target(gate, caller, version, label, model)
    error = refused.value
    return f"{type(error).__name__} {error.status} {error.message}".replace(model, "MODEL")


def test_a_bare_name_means_the_highest_available_version(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE, 2: State.AVAILABLE, 3: State.LOADING, 4: State.END})
    assert target(gate, gate.with_grants(GrantSpec("mnist"))) == 2


def test_versions_and_labels_are_found(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE, 2: State.AVAILABLE}, {"stable": 1})
    caller = gate.with_grants(GrantSpec("mnist"))
    assert target(gate, caller, version=1) == 1
    assert target(gate, caller, label="stable") == 1
    with pytest.raises(LabelNotFound):
        target(gate, caller, label="canary")
    with pytest.raises(ModelNotFound, match=r"Specific\(mnist, 7\)"):
        target(gate, caller, version=7)


@pytest.mark.parametrize(
    ("version", "label"), [(None, None), (1, None), (50, None), (None, "stable"), (None, "canary")]
)
def test_a_model_without_a_grant_answers_as_an_unknown_one(gate: Gate, version: int | None, label: str | None):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE}, {"stable": 1}, also=["granted"])
    caller = gate.with_grants(GrantSpec("granted"))
    answer = refusal(gate, caller, version, label)
    assert answer == refusal(gate, caller, version, label, model="unknown")
    assert answer.startswith("ModelNotFound 404 Servable not found for request: ")


def test_a_version_without_a_grant_answers_as_an_unknown_one_whatever_its_state(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE, 2: State.AVAILABLE, 3: State.LOADING, 4: State.END})
    caller = gate.with_grants(GrantSpec("mnist", version=1))
    assert target(gate, caller, version=1) == 1
    for version in (2, 3, 4, 5):
        assert (
            refusal(gate, caller, version)
            == f"ModelNotFound 404 Servable not found for request: Specific(MODEL, {version})"
        )


def test_a_bare_name_is_unknown_to_whoever_may_not_use_the_highest_version(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE, 2: State.AVAILABLE})
    caller = gate.with_grants(GrantSpec("mnist", version=1))
    assert refusal(gate, caller) == "ModelNotFound 404 Servable not found for request: Latest(MODEL)"


def test_a_label_that_points_to_a_version_without_a_grant_answers_as_an_unknown_label(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE, 2: State.AVAILABLE}, {"stable": 1, "canary": 2})
    caller = gate.with_grants(GrantSpec("mnist", version=1))
    assert target(gate, caller, label="stable") == 1
    known, unknown = refusal(gate, caller, label="canary"), refusal(gate, caller, label="shadow")
    assert known.replace("canary", "LABEL") == unknown.replace("shadow", "LABEL")


def test_a_grant_for_a_label_opens_the_version_under_any_name(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE, 2: State.AVAILABLE}, {"stable": 1})
    caller = gate.with_grants(GrantSpec("mnist", label="stable"))
    assert target(gate, caller, label="stable") == 1
    assert target(gate, caller, version=1) == 1
    assert "ModelNotFound" in refusal(gate, caller, version=2)


def test_a_grant_for_another_action_is_no_grant(gate: Gate):
    caller = gate.with_grants(GrantSpec("mnist", actions=USE - {Action.PREDICT}))
    assert "ModelNotFound" in refusal(gate, caller)
    assert "ModelNotFound" in refusal(gate, caller, version=1)
    assert gate.admission.target(caller, Action.METADATA, "mnist").number == 2


def test_a_granted_version_in_preparation_is_not_ready_rather_than_unknown(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.LOADING})
    for spec in (GrantSpec("mnist"), GrantSpec("mnist", version=1)):
        caller = gate.with_grants(spec)
        for version in (None, 1):
            with pytest.raises(VersionNotReady):
                target(gate, caller, version)
    caller = gate.with_grants(GrantSpec("mnist", version=2))
    assert refusal(gate, caller) == "ModelNotFound 404 Servable not found for request: Latest(MODEL)"


def test_a_pattern_opens_the_models_that_it_matches(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE}, also=["team-a-net", "team-b-net"])
    caller = gate.with_grants(GrantSpec("team-a-*"))
    assert target(gate, caller, model="team-a-net") == 1
    for hidden in ("team-b-net", "mnist", "team-a-"):
        assert "ModelNotFound 404" in refusal(gate, caller, model=hidden)


def test_a_target_that_is_remembered_is_forgotten_when_its_grant_ends(gate: Gate):
    end = gate.snapshot.now + 60_000
    caller = gate.with_grants(GrantSpec("mnist", expires_at=end), GrantSpec("mnist", version=1, expires_at=end + 1))
    assert (target(gate, caller), target(gate, caller, version=1)) == (2, 1)
    gate.snapshot.now = end - 1
    assert (target(gate, caller), target(gate, caller, version=1)) == (2, 1)
    gate.snapshot.now = end
    assert "ModelNotFound" in refusal(gate, caller)
    # Another grant for the same lasts longer.
    assert target(gate, caller, version=1) == 1
    gate.snapshot.now = end + 1
    assert "ModelNotFound" in refusal(gate, caller, version=1)


def test_an_expired_grant_answers_as_no_grant(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE}, {"stable": 1})
    caller = gate.with_grants(GrantSpec("mnist", expires_at=gate.snapshot.now))
    for version, label in ((None, None), (1, None), (None, "stable"), (None, "nosuch")):
        answer = refusal(gate, caller, version, label)
        assert answer == refusal(gate, caller, version, label, model="unknown")


def test_a_withdrawn_grant_counts_for_the_next_request(gate: Gate):
    token = gate.token()
    gate.with_grants(GrantSpec("mnist"))
    assert target(gate, gate.caller(token)) == 2
    assert target(gate, gate.caller(token)) == 2
    gate.snapshot.rights = Rights({"cli_1": client()})
    assert "ModelNotFound" in refusal(gate, gate.caller(token))


def test_a_new_version_counts_for_the_next_request(gate: Gate):
    caller = gate.with_grants(GrantSpec("mnist"))
    assert target(gate, caller) == 2
    gate.snapshot.catalog = catalog({2: State.AVAILABLE, 3: State.AVAILABLE})
    assert target(gate, caller) == 3
    assert "ModelNotFound" in refusal(gate, caller, version=1)


def test_a_caller_admitted_before_a_change_does_not_prepare_the_answer_for_later_ones(gate: Gate):
    early = gate.with_grants(GrantSpec("mnist"))
    late = gate.with_grants(GrantSpec("mnist", version=1))
    assert target(gate, early, version=2) == 2
    assert "ModelNotFound" in refusal(gate, late, version=2)


def test_callers_of_different_clients_do_not_share_answers(gate: Gate):
    gate.snapshot.rights = Rights(
        {"cli_1": client(grants=granting(GrantSpec("mnist"))), "cli_2": client("cli_2", grants={})}
    )
    first, second = gate.caller(gate.token("cli_1")), gate.caller(gate.token("cli_2"))
    assert target(gate, first) == 2
    assert "ModelNotFound" in refusal(gate, second)


def test_the_number_of_remembered_targets_is_bounded(gate: Gate, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admission_module, "MOST_REMEMBERED", 2)
    caller = gate.with_grants(GrantSpec("mnist"))
    for _ in range(3):
        assert [target(gate, caller), target(gate, caller, 1), target(gate, caller, 2)] == [2, 1, 2]


def test_threads_that_ask_while_pictures_change_get_answers_of_one_picture_or_the_other(gate: Gate):
    """No thread ever sees version 1 after it saw the picture without it, and none fails in another way."""
    token = gate.token()
    both = Rights({"cli_1": client(grants=granting(GrantSpec("mnist")))})
    one = Rights({"cli_1": client(grants=granting(GrantSpec("mnist", version=2)))})
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            caller = gate.caller(token)
            try:
                assert target(gate, caller, version=1) == 1
                assert caller.rights is both.clients["cli_1"]
            except ModelNotFound:
                assert caller.rights is one.clients["cli_1"]

    gate.snapshot.rights = both
    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        for _ in range(2000):
            gate.snapshot.rights = one
            gate.snapshot.rights = both
        stop.set()
        for thread in asking:
            thread.result()
