"""Canaries: versions that are promoted or taken back by themselves, by what gateways counted of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from auth.audit_tables import AuditEntry
from model_store import canaries, registry, shadows, traffic
from model_store.canaries import Canary, CanaryState, Conditions, Move, Moved, Plan
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.errors import VersionInUse, VersionNotAvailable
from model_store.further_signatures import FurtherSignature, FurtherSignatures
from model_store.settings import StoreSettings
from model_store.shadows import Shadow
from model_store.signature import Signature, TensorSpec
from model_store.tables import Version
from model_store.traffic import Traffic, TrafficHeld, TrafficInvalid
from model_store.traffic_figures import Figure, Key, Measure, add_figures, bucket_of
from model_store.traffic_tables import CanaryRow
from tests.databases import make_tables
from tests.publishing import DIGITS, prepare, upload
from workers.canaries import Standing, awaited, broken, judge, judge_all, standing


class Undone(Exception):
    """Takes a transaction back."""


MODEL = "mnist"
STRICT = Conditions(error_rate=0.05, p99_seconds=1.0, p99_ratio=2.0)
PLAN = Plan(2, 1, (10.0, 50.0, 100.0), 0.0, 20, STRICT)


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    with three_versions(f"sqlite:///{tmp_path / 'sluice.db'}") as made:
        yield made


@contextlib.contextmanager
def three_versions(database_url: str) -> Iterator[Sessions]:
    """A database with versions 1 to 3 of the model, AVAILABLE."""
    settings = StoreSettings(database_url=database_url)
    make_tables(settings)
    engine = connect(settings)
    made = sessions_of(engine)
    for number in (1, 2, 3):
        upload(made, content=number)
        prepare(made, number)
    yield made
    engine.dispose()


def begin(sessions: Sessions, plan: Plan = PLAN) -> Canary:
    with transaction(sessions) as session:
        return canaries.begin(session, MODEL, plan, "cli_admin")


def now(sessions: Sessions) -> Canary:
    with transaction(sessions, write=False) as session:
        return canaries.canary_of(session, MODEL)


def count(sessions: Sessions, version: int, requests: int, *, errors: int = 0, seconds: float = 0.01) -> None:
    """What gateways write down of so many predictions at the present step."""
    canary = now(sessions)
    key = Key(MODEL, canary.run, canary.step, version, Measure.REQUESTS)
    figures = {key: Figure(requests), key._replace(measure=Measure.ERRORS): Figure(errors)}
    figures[key._replace(measure=Measure.SECONDS, bucket=bucket_of(seconds))] = Figure(requests, seconds)
    with transaction(sessions) as session:
        add_figures(session, {place: figure for place, figure in figures.items() if figure.count})


def shares(sessions: Sessions) -> Mapping[int, float]:
    with transaction(sessions, write=False) as session:
        split = traffic.current_split(session, MODEL)
        return {} if split is None else dict(split.shares)


def told(sessions: Sessions) -> list[tuple[str, float, bool]]:
    with transaction(sessions, write=False) as session:
        return [(row.move, row.percent, row.automatic) for row in canaries.moves_of(session, MODEL)]


def test_a_good_version_gets_more_at_each_step_and_then_all(database_url: str):
    with three_versions(database_url) as sessions:
        check_promotion(sessions)


def check_promotion(sessions: Sessions) -> None:
    begin(sessions)
    seen = [shares(sessions)]
    for _ in PLAN.steps:
        judge_all(sessions)  # nothing was counted yet
        count(sessions, 1, 200)
        count(sessions, 2, 20, errors=1)
        judge_all(sessions)
        seen.append(shares(sessions))
    assert seen == [{1: 90.0, 2: 10.0}, {1: 50.0, 2: 50.0}, {2: 100.0}, {2: 100.0}]
    assert now(sessions).state is CanaryState.PROMOTED
    assert told(sessions) == [
        ("begun", 10.0, False), ("stepped", 50.0, True), ("stepped", 100.0, True), ("promoted", 100.0, True)
    ]  # fmt: skip
    # Each of them is in the audit log, as nobody's but the system's.
    with transaction(sessions, write=False) as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.act == "move_canary")).all()
        assert [(row.name, row.identity, row.model, row.version) for row in rows] == [("sluice", "", MODEL, 2)] * 3
        assert '"move":"promoted"' in rows[-1].detail


@pytest.mark.parametrize(
    ("counted", "reason"),
    [
        ({"requests": 3, "errors": 2}, "2 of 3 requests failed"),
        ({"requests": 100, "errors": 6}, "6 of 100 requests failed"),
        ({"requests": 20, "seconds": 1.5}, "above 1 s"),
        ({"requests": 20, "seconds": 0.03}, "above 2 times"),
    ],
    ids=["few", "many", "slow", "slower"],
)
def test_a_bad_version_is_taken_back(sessions: Sessions, counted: dict[str, Any], reason: str):
    begin(sessions)
    count(sessions, 1, 100)
    count(sessions, 2, **counted)
    judge_all(sessions)
    assert (now(sessions).state, shares(sessions)) == (CanaryState.ROLLED_BACK, {1: 100.0})
    with transaction(sessions) as session:
        assert reason in canaries.moves_of(session, MODEL)[-1].reason
        # Another gateway that looked at the same figures finds that it was done.
        assert judge(session, MODEL) is None


@pytest.mark.parametrize(
    ("own", "stable", "seconds", "waits_for"),
    [
        ({"requests": 19}, 100, 0.0, "1 more requests"),
        ({"requests": 19, "errors": 1}, 100, 0.0, "1 more requests"),
        ({"requests": 20}, 10, 0.0, "10 more requests to the stable version"),
        # A slow machine needs a second or more to come to the judgement.
        ({"requests": 20}, 100, 90.0, "[5-9][0-9] more seconds"),
    ],
    ids=["requests", "errors", "stable", "seconds"],
)
def test_a_version_waits_until_enough_is_known(
    sessions: Sessions, own: dict[str, Any], stable: int, seconds: float, waits_for: str
):
    canary = begin(sessions, replace(PLAN, step_seconds=seconds))
    count(sessions, 1, stable)
    count(sessions, 2, **own)
    judge_all(sessions)
    assert now(sessions).step == 0
    with transaction(sessions, write=False) as session:
        found = standing(session, canary)
        assert broken(canary.plan, found) is None
        assert re.fullmatch(waits_for, str(awaited(canary.plan, found)))


def test_a_version_that_the_shadow_finds_to_disagree_is_taken_back(sessions: Sessions):
    plan = replace(PLAN, conditions=Conditions(disagreement=0.1))
    with pytest.raises(TrafficInvalid, match="make version 2 the model's shadow"):
        begin(sessions, plan)
    with transaction(sessions) as session:
        shadow = shadows.set_shadow(session, MODEL, Shadow(2))
    begin(sessions, plan)
    # The canary needs the shadow, which nobody may take away from it.
    for change in (lambda s: shadows.clear_shadow(s, MODEL), lambda s: shadows.set_shadow(s, MODEL, Shadow(2))):
        with pytest.raises(TrafficHeld), transaction(sessions) as session:
            change(session)
    key = Key(MODEL, shadow.run, 0, 1, Measure.COMPARED)
    count(sessions, 2, 20)
    with transaction(sessions) as session:
        add_figures(session, {key: Figure(10), key._replace(measure=Measure.AGREED): Figure(9)})
    judge_all(sessions)
    assert now(sessions).step == 0
    with transaction(sessions) as session:
        add_figures(session, {key: Figure(10), key._replace(measure=Measure.AGREED): Figure(8)})
    judge_all(sessions)
    assert now(sessions).state is CanaryState.ROLLED_BACK


def test_a_version_that_leaves_is_taken_back_and_the_stable_one_may_not_leave(sessions: Sessions):
    begin(sessions)
    with pytest.raises(VersionInUse), transaction(sessions) as session:
        registry.retire(session, MODEL, 1)
    with transaction(sessions) as session:
        registry.retire(session, MODEL, 2)
    assert shares(sessions) == {1: 90.0}
    judge_all(sessions)
    assert (now(sessions).state, shares(sessions)) == (CanaryState.ROLLED_BACK, {1: 100.0})
    with transaction(sessions, write=False) as session:
        assert canaries.moves_of(session, MODEL)[-1].reason == "version 2 does not serve any more"


def test_a_canary_that_cannot_be_judged_keeps_no_other_one_waiting(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
):
    # given one that stands where it has no step, as a row that was changed by hand
    begin(sessions)
    with transaction(sessions) as session:
        session.get_one(CanaryRow, MODEL).step = 9
        for number in (1, 2):
            registry.publish(session, "other", format="onnx", digest=f"{number:064x}", size_bytes=1, uploaded_by="a")
    for number in (1, 2):
        prepare(sessions, number, "other")
    with transaction(sessions) as session:
        canaries.begin(session, "other", PLAN, "cli_admin")
        registry.retire(session, "other", 2)
    # when all are looked at, then the one behind it moves, and the log names the first
    judge_all(sessions)
    with transaction(sessions, write=False) as session:
        assert canaries.canary_of(session, "other").state is CanaryState.ROLLED_BACK
    assert f"the canary of model {MODEL} could not be judged" in caplog.text


def test_a_share_that_is_just_reached_is_not_exceeded():
    conditions = Conditions(error_rate=0.29, disagreement=0.29)
    found = Standing(100, 29, 0, None, 0, None, 100, 0.29, 0.0)
    assert 0.29 * 100 < 29
    assert broken(replace(PLAN, conditions=conditions), found) is None
    worse = replace(found, errors=30), replace(found, disagreement=0.3)
    assert all(broken(replace(PLAN, conditions=conditions), one) for one in worse)


def test_a_version_that_takes_other_inputs_is_not_tried(sessions: Sessions):
    for inputs, suits in {
        (TensorSpec("image", "float64", (None, None, 28)),): True,
        (TensorSpec("image", "string", (None, 28, 28)),): False,
        (TensorSpec("image", "float32", (None, 32, 32)),): False,
        (TensorSpec("image", "float32", (None, 784)),): False,
        (TensorSpec("picture", "float32", (None, 28, 28)),): False,
        (): False,
    }.items():
        with contextlib.suppress(Undone), transaction(sessions) as session:
            version = session.get_one(Version, (MODEL, 2))
            version.signature = Signature(inputs, DIGITS.outputs).to_json()
            session.flush()
            with contextlib.nullcontext() if suits else pytest.raises(TrafficInvalid, match="other inputs"):
                canaries.begin(session, MODEL, PLAN, "cli_admin")
            raise Undone


def test_a_version_that_lacks_a_signature_of_the_stable_one_is_not_tried(sessions: Sessions):
    other = Signature((TensorSpec("text", "string", (None,)),), DIGITS.outputs, "texts")
    unlike = Signature((TensorSpec("text", "float32", (None,)),), DIGITS.outputs, "texts")
    for further, suits in ((other, True), (unlike, False), (None, False)):
        with contextlib.suppress(Undone), transaction(sessions) as session:
            offered = {1: other, 2: further}
            for number, one in offered.items():
                listed = () if one is None else (FurtherSignature(one, 8),)
                session.get_one(Version, (MODEL, number)).further_signatures = FurtherSignatures(listed).to_json()
            session.flush()
            with contextlib.nullcontext() if suits else pytest.raises(TrafficInvalid, match="other inputs"):
                canaries.begin(session, MODEL, PLAN, "cli_admin")
            raise Undone


def test_a_shadow_that_is_being_ended_is_none_to_judge_by(database_url: str):
    plan = replace(PLAN, conditions=Conditions(disagreement=0.1))
    with three_versions(database_url) as sessions, ThreadPoolExecutor(1) as pool:
        with transaction(sessions) as session:
            shadows.set_shadow(session, MODEL, Shadow(2))
        with pytest.raises(TrafficInvalid, match="first step below 100"):
            begin(sessions, replace(plan, steps=(100.0,)))
        with transaction(sessions) as session:
            shadows.clear_shadow(session, MODEL)
            begun = pool.submit(begin, sessions, plan)
            # It waits for the end of this transaction, and does not judge by what it saw before.
            with pytest.raises(TimeoutError):
                begun.result(0.2)
        with pytest.raises(TrafficInvalid, match="make version 2 the model's shadow"):
            begun.result(20)


def test_two_gateways_that_lead_at_once_make_one_step(sessions: Sessions):
    begin(sessions)
    count(sessions, 1, 100)
    count(sessions, 2, 20)
    moved = []
    for _ in range(2):
        with transaction(sessions) as session:
            moved.append(judge(session, MODEL) is not None)
    assert moved == [True, False]
    assert now(sessions).step == 1


def test_an_administrator_promotes_or_rolls_back_also_after_the_end(sessions: Sessions):
    begin(sessions)
    by = Moved("asked for", "cli_admin")
    for move, state, left in (
        (canaries.promote, CanaryState.PROMOTED, {2: 100.0}),
        (canaries.roll_back, CanaryState.ROLLED_BACK, {1: 100.0}),
    ):
        with transaction(sessions) as session:
            move(session, canaries.canary_of(session, MODEL, lock=True), by)
        assert (now(sessions).state, shares(sessions)) == (state, left)
    for move in (canaries.promote, canaries.roll_back):
        with pytest.raises(canaries.CanaryEnded), transaction(sessions) as session:
            move(session, canaries.canary_of(session, MODEL, lock=True), by)
    # Forgotten, its history is gone, and traffic stays.
    with transaction(sessions) as session:
        canaries.forget(session, MODEL)
    assert (told(sessions), shares(sessions)) == ([], {1: 100.0})


def test_while_one_is_under_way_nobody_else_changes_the_traffic(sessions: Sessions):
    begin(sessions)
    for change in (
        lambda session: traffic.set_traffic(session, MODEL, Traffic({"3": 1})),
        lambda session: traffic.clear_traffic(session, MODEL),
        lambda session: canaries.begin(session, MODEL, PLAN, "cli_admin"),
        lambda session: canaries.forget(session, MODEL),
    ):
        with pytest.raises(TrafficHeld), transaction(sessions) as session:
            change(session)


UNJUDGEABLE: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"version": 9}, VersionNotAvailable),
    ({"stable": 2}, TrafficInvalid),
    ({"steps": (10.0, 10.0)}, TrafficInvalid),
    ({"steps": (50.0, 20.0)}, TrafficInvalid),
    ({"steps": (100.0,)}, TrafficInvalid),
]


def test_a_plan_that_could_not_be_judged_is_refused(sessions: Sessions):
    for change, error in UNJUDGEABLE:
        with pytest.raises(error):
            begin(sessions, replace(PLAN, **change))
    assert shares(sessions) == {}


def test_the_stable_version_is_where_traffic_goes_now(sessions: Sessions):
    with transaction(sessions) as session:
        assert canaries.stable_version(session, MODEL, 3) == 2
        traffic.set_traffic(session, MODEL, Traffic({"1": 1}))
        assert canaries.stable_version(session, MODEL, 3) == 1
        with pytest.raises(TrafficInvalid, match="goes to this version already"):
            canaries.stable_version(session, MODEL, 1)
        traffic.set_traffic(session, MODEL, Traffic({"1": 1, "2": 1}))
        with pytest.raises(TrafficInvalid):
            canaries.stable_version(session, MODEL, 3)


def test_the_history_is_bounded(sessions: Sessions, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(canaries, "MOST_MOVES", 5)
    begin(sessions, replace(PLAN, steps=tuple(float(step) for step in range(1, 11))))
    for _ in range(9):
        with transaction(sessions) as session:
            canaries.step_on(session, canaries.canary_of(session, MODEL, lock=True), Moved("on"))
    assert [move for move, _, _ in told(sessions)] == [Move.STEPPED] * 5
