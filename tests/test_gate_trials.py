"""Trials of versions: when two answers agree, and how many versions may be tried at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from auth.grants import Action, GrantSpec
from auth.scopes import Scope
from gateway.gate_trials import agreeing
from gateway.version_moves import MOST_AT_ONCE, MovesBusy, place
from model_store.signature import Tensor
from tests.quiet_gateway import QuietGateway, quiet_gateway
from tests.rights_kit import add_client, serve, token

MODEL = "tried"
LABEL = f"/admin/models/{MODEL}/labels/stable"
SCOPES = [Scope.MODELS_READ, Scope.MODELS_WRITE]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[QuietGateway]:
    """With versions 1 to 3 of the model, all AVAILABLE."""
    with quiet_gateway(tmp_path) as made:
        serve(made.parts, MODEL, 3)
        yield made


def administrator(gateway: QuietGateway, grant: GrantSpec) -> dict[str, str]:
    return token(gateway.parts, add_client(gateway.parts, f"a-{grant.version}", SCOPES, [grant]), SCOPES)


CLASSES = np.array([[0.9, 0.1], [0.1, 0.9]], np.float32)
TEXTS = np.array([[b"a", b"b"], [b"b", b"a"]], object)


@pytest.mark.parametrize(
    ("own", "other", "agreed"),
    [
        (CLASSES, CLASSES * 0.5, 2),
        (CLASSES, CLASSES[::-1], 0),
        (CLASSES, np.full((2, 2), np.nan, np.float32), 0),
        (CLASSES, TEXTS, 0),
        (TEXTS, CLASSES, 0),
        (CLASSES[:, :1], TEXTS[:, :1], 0),
        (TEXTS, TEXTS, 2),
    ],
    ids=["classes", "turned", "no numbers", "texts", "numbers", "texts alone", "same texts"],
)
def test_answers_agree_by_their_largest_output_and_never_with_what_is_none(own: Tensor, other: Tensor, agreed: int):
    assert agreeing({"y": own}, {"y": other}) == (agreed, 2)


def test_so_many_versions_are_tried_at_a_time_and_the_place_of_each_is_given_back(gateway: QuietGateway):
    # given a label with a gate, and all places taken
    admin = administrator(gateway, GrantSpec(MODEL, actions=frozenset({Action.LABEL, Action.RETIRE, Action.METADATA})))
    gates = gateway.http.put(f"{LABEL}/gates", headers=admin, json={"shadow": {"requests": 1}})
    assert gates.status_code == 200
    places = [place() for _ in range(MOST_AT_ONCE)]
    for one in places:
        one.__enter__()
    try:
        # when a version is to be tried, or to be warmed up, then neither waits with a thread of the gateway's
        tried = gateway.http.put(LABEL, headers=admin, json={"version": 2})
        restored = gateway.http.post(f"/admin/models/{MODEL}/versions/2/restore", headers=admin)
        for answer in (tried, restored):
            assert (answer.status_code, answer.json()["code"]) == (503, "moves_busy")
            assert answer.headers["retry-after"] == "5"
    finally:
        for one in places:
            one.__exit__(None, None, None)
    # Once there is room, as often as that may be.
    for _ in range(MOST_AT_ONCE + 1):
        assert gateway.http.put(LABEL, headers=admin, json={"version": 2}).json()["code"] == "gates_not_passed"
        with pytest.raises(MovesBusy), place(), place(), place(), place(), place():
            pass


def test_a_label_does_not_tell_of_a_version_that_its_reader_may_not_see(gateway: QuietGateway):
    admin = administrator(gateway, GrantSpec(MODEL, actions=frozenset({Action.LABEL, Action.METADATA})))
    for number in (3, 2):
        assert gateway.http.put(LABEL, headers=admin, json={"version": number}).status_code == 200
    [known] = gateway.http.get(f"/admin/models/{MODEL}/labels", headers=admin).json()["labels"]
    assert (known["version"], known["previous"]) == (2, 3)
    reader = administrator(gateway, GrantSpec(MODEL, version=2))
    [seen] = gateway.http.get(f"/admin/models/{MODEL}/labels", headers=reader).json()["labels"]
    assert (seen["version"], seen["previous"]) == (2, None)
