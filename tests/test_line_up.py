"""The line-up of a model's versions: what policies take away and bring back, and what roll-backs mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.orm import Session

from model_store import labels, line_up
from model_store.database import Base, Sessions, connect, sessions_of, transaction
from model_store.errors import (
    LabelMissing,
    LabelMoved,
    ModelNotFound,
    NoVersionBefore,
    VersionInUse,
    VersionNotAvailable,
    VersionNotReady,
    VersionUnwanted,
)
from model_store.labels import delete_label, look, set_label
from model_store.line_up import Line, follow, moves, require_restorable, restore, retire, roll_back, step_back
from model_store.registry import delete_version, make_available, refuse, served
from model_store.settings import StoreSettings
from model_store.tables import Generation, State, Variant
from model_store.traffic import Traffic, set_traffic
from model_store.version_policies import ALL, VersionPolicy, policy_of
from tests.conftest import empty_database
from tests.databases import make_tables
from tests.publishing import DIGITS, catalog, prepare, upload
from tests.version_kit import states

MODEL = "mnist"
LATEST = VersionPolicy(latest=1)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    """One of each kind for all tests: making it takes longer than they do."""
    with empty_database(request, tmp_path_factory.mktemp("database")) as url:
        settings = StoreSettings(database_url=url)
        make_tables(settings)
        engine = connect(settings)
        yield sessions_of(engine)
        engine.dispose()


@pytest.fixture
def sessions(database: Sessions) -> Iterator[Sessions]:
    yield database
    with transaction(database) as session:
        for table in reversed(Base.metadata.sorted_tables):
            if table.name != Generation.__tablename__:
                session.execute(table.delete())


def versions(sessions: Sessions, count: int) -> None:
    """So many AVAILABLE versions."""
    for content in range(1, count + 1):
        upload(sessions, content=content)
        prepare(sessions, content)


def warm_up(sessions: Sessions, number: int) -> None:
    """What preparation does before its last step: the version may be loaded, and does not serve."""
    variant = Variant(name="onnx", runtime="onnx", digest="1" * 64, size_bytes=9, memory_bytes=5)
    with transaction(sessions) as session:
        make_available(
            session, MODEL, number, signature=DIGITS, variant="onnx", variants=[variant], max_batch=1,
            max_parallelism=1, batch_seconds=None, report={}, warming=True,
        )  # fmt: skip


def set_policy(sessions: Sessions, policy: VersionPolicy) -> line_up.Moves:
    with transaction(sessions) as session:
        return follow(session, MODEL, policy)


LINES = st.lists(
    st.builds(Line, st.integers(1, 9), available=st.booleans(), withdrawn=st.booleans()),
    unique_by=lambda line: line.number,
)
POLICIES = st.one_of(
    st.just(ALL),
    st.builds(VersionPolicy, latest=st.integers(1, 4)),
    st.builds(VersionPolicy, specific=st.frozensets(st.integers(1, 9), min_size=1)),
)


@given(POLICIES, LINES, st.frozensets(st.integers(1, 9)))
def test_no_policy_takes_away_what_serves_last_nor_what_is_held(
    policy: VersionPolicy, lines: list[Line], held: frozenset[int]
):
    planned = moves(policy, lines, held)
    available = {line.number for line in lines if line.available}
    after = (available | set(planned.restore)) - set(planned.leave)
    assert after or not available
    assert not held.intersection(planned.leave)
    assert available.isdisjoint(planned.restore)
    assert set(planned.leave) <= available
    # Done once, there is nothing more to do.
    moved = [Line(line.number, line.number in after, line.withdrawn) for line in lines]
    assert moves(policy, moved, held) == line_up.Moves()


def test_a_new_version_takes_the_place_of_the_old_one_in_one_transaction(sessions: Sessions):
    versions(sessions, 1)
    set_policy(sessions, LATEST)
    upload(sessions, content=2)
    assert states(sessions, MODEL) == {1: "AVAILABLE", 2: "START"}
    assert prepare(sessions, 2)
    assert states(sessions, MODEL) == {1: "UNLOADING", 2: "AVAILABLE"}
    assert catalog(sessions).resolve(MODEL).number == 2
    with pytest.raises(ModelNotFound):
        catalog(sessions).resolve(MODEL, 1)


def test_a_version_that_fails_or_only_warms_up_changes_nothing_that_is_served(sessions: Sessions):
    versions(sessions, 1)
    set_policy(sessions, LATEST)
    for content in (2, 3):
        upload(sessions, content=content)
    with transaction(sessions) as session:
        refuse(session, MODEL, 2, code="not_a_model", message="no", report={})
    warm_up(sessions, 3)
    with transaction(sessions) as session:
        # Workers may load it already.
        assert served(session, MODEL, 3).number == 3
    assert states(sessions, MODEL) == {1: "AVAILABLE", 2: "END", 3: "LOADING"}
    assert catalog(sessions).resolve(MODEL).number == 1
    # Written down once more when it is warm, or by the next preparation where this one was killed.
    assert prepare(sessions, 3)
    assert states(sessions, MODEL) == {1: "UNLOADING", 2: "END", 3: "AVAILABLE"}


def test_what_was_retired_while_it_warmed_up_stays_retired(sessions: Sessions):
    upload(sessions)
    warm_up(sessions, 1)
    with transaction(sessions) as session:
        retire(session, MODEL, 1)
    assert not prepare(sessions, 1)
    assert states(sessions, MODEL) == {1: "END"}


def test_a_policy_lets_versions_go_and_brings_them_back(sessions: Sessions):
    versions(sessions, 3)
    assert set_policy(sessions, LATEST).leave == (1, 2)
    assert states(sessions, MODEL) == {1: "UNLOADING", 2: "UNLOADING", 3: "AVAILABLE"}
    moved = set_policy(sessions, VersionPolicy(specific=frozenset({1, 3})))
    assert (moved.restore, moved.leave) == ((1,), ())
    moved = set_policy(sessions, VersionPolicy(latest=2))
    assert (moved.restore, moved.leave) == ((2,), (1,))
    assert set_policy(sessions, ALL).restore == (1,)
    with transaction(sessions) as session:
        assert policy_of(session, MODEL) == ALL


def test_the_old_ones_stay_until_a_named_version_is_prepared(sessions: Sessions):
    versions(sessions, 1)
    upload(sessions, content=2)
    assert set_policy(sessions, VersionPolicy(specific=frozenset({2}))) == line_up.Moves()
    assert states(sessions, MODEL)[1] == "AVAILABLE"
    prepare(sessions, 2)
    assert states(sessions, MODEL) == {1: "UNLOADING", 2: "AVAILABLE"}


def test_what_a_label_or_traffic_holds_stays_until_it_is_let_go(sessions: Sessions):
    versions(sessions, 3)
    with transaction(sessions) as session:
        set_label(session, MODEL, "stable", 1)
        set_traffic(session, MODEL, Traffic({"2": 1.0, "3": 1.0}))
    assert set_policy(sessions, LATEST).leave == ()
    with transaction(sessions) as session:
        set_label(session, MODEL, "stable", 3)
    assert states(sessions, MODEL) == {1: "UNLOADING", 2: "AVAILABLE", 3: "AVAILABLE"}


def test_a_label_that_was_given_gates_meanwhile_does_not_move_without_them(sessions: Sessions):
    versions(sessions, 2)
    with transaction(sessions) as session:
        set_label(session, MODEL, "stable", 1)
        labels.set_gates(session, MODEL, "stable", '{"golden": {}}')
    with pytest.raises(LabelMoved), transaction(sessions) as session:
        set_label(session, MODEL, "stable", 2)
    with transaction(sessions) as session:
        assert look(session, MODEL, "stable").version == 1
        labels.set_gates(session, MODEL, "stable", None)
        assert set_label(session, MODEL, "stable", 2).previous == 1


def test_of_two_that_retire_at_once_neither_brings_back_what_the_other_one_took_away(sessions: Sessions):
    versions(sessions, 3)
    set_policy(sessions, LATEST)
    assert states(sessions, MODEL) == {1: "UNLOADING", 2: "UNLOADING", 3: "AVAILABLE"}
    # given that 2 was worked out to follow 3, and is retired while it warms up
    with transaction(sessions) as session:
        retire(session, MODEL, 2)
    with transaction(sessions) as session:
        assert retire(session, MODEL, 3, successors=[2])
    assert State.AVAILABLE not in states(sessions, MODEL).values()
    # What the policy still wants does come back.
    with transaction(sessions) as session:
        restore(session, MODEL, [3])
    with transaction(sessions) as session:
        assert retire(session, MODEL, 3, successors=[1])
    assert states(sessions, MODEL)[1] == "AVAILABLE"


def test_what_an_administrator_retired_comes_back_by_no_policy_but_one_that_names_it(sessions: Sessions):
    versions(sessions, 2)
    with transaction(sessions) as session:
        retire(session, MODEL, 1)
    assert set_policy(sessions, VersionPolicy(latest=2)).restore == ()
    assert set_policy(sessions, ALL).restore == ()
    assert set_policy(sessions, VersionPolicy(specific=frozenset({1}))).restore == (1,)


def test_a_version_leaves_for_as_long_as_jobs_wait_and_comes_back_until_it_is_deleted(sessions: Sessions):
    versions(sessions, 1)
    with transaction(sessions) as session:
        assert retire(session, MODEL, 1, waited_for=True)
        assert served(session, MODEL, 1).number == 1
        with pytest.raises(VersionInUse, match="jobs still run"):
            delete_version(session, MODEL, 1)
        assert line_up.leaving(session, 10) == [(MODEL, 1)]
        assert line_up.leaving(session, 10, (MODEL, 1)) == []
    with transaction(sessions) as session:
        require_restorable(session, MODEL, 1)
        restore(session, MODEL, [1])
        assert not line_up.end(session, MODEL, 1)
    assert states(sessions, MODEL) == {1: "AVAILABLE"}
    with transaction(sessions) as session:
        retire(session, MODEL, 1)
        delete_version(session, MODEL, 1)
        with pytest.raises(ModelNotFound):
            restore(session, MODEL, [1])


def test_what_failed_or_was_never_prepared_does_not_come_back(sessions: Sessions):
    for content in (1, 2):
        upload(sessions, content=content)
    with transaction(sessions) as session:
        refuse(session, MODEL, 1, code="not_a_model", message="no", report={})
        retire(session, MODEL, 2)
        for number in (1, 2):
            with pytest.raises(VersionNotAvailable):
                require_restorable(session, MODEL, number)
            with pytest.raises(VersionNotReady):
                served(session, MODEL, number)
    warm_up(sessions, upload(sessions, content=3)[0])
    for number in (1, 2, 3):
        with transaction(sessions) as session, pytest.raises(VersionNotAvailable):
            restore(session, MODEL, [number])


def test_a_version_that_would_leave_again_is_not_brought_back(sessions: Sessions):
    versions(sessions, 2)
    set_policy(sessions, LATEST)
    with transaction(sessions) as session, pytest.raises(VersionUnwanted, match="latest 1"):
        require_restorable(session, MODEL, 1)


@pytest.mark.parametrize("policy", [ALL, LATEST], ids=["all", "latest"])
def test_a_roll_back_goes_one_version_back_each_time_and_then_no_further(sessions: Sessions, policy: VersionPolicy):
    versions(sessions, 3)
    set_policy(sessions, policy)
    for meant in (2, 1):
        with transaction(sessions) as session:
            roll_back(session, MODEL, step_back(session, MODEL))
        assert catalog(sessions).resolve(MODEL).number == meant
    with transaction(sessions) as session, pytest.raises(NoVersionBefore):
        step_back(session, MODEL)
    # A new version serves as any does.
    upload(sessions, content=9)
    prepare(sessions, 4)
    assert catalog(sessions).resolve(MODEL).number == 4
    assert states(sessions, MODEL)[3] == "UNLOADING"


def test_what_is_rolled_back_from_stays_for_its_labels(sessions: Sessions):
    versions(sessions, 2)
    with transaction(sessions) as session:
        set_label(session, MODEL, "new", 2)
        roll_back(session, MODEL, step_back(session, MODEL))
    found = catalog(sessions)
    assert (found.resolve(MODEL).number, found.resolve(MODEL, label="new").number) == (1, 2)
    with transaction(sessions) as session:
        delete_label(session, MODEL, "new")
    assert states(sessions, MODEL)[2] == "UNLOADING"


def test_a_roll_back_of_split_traffic_is_the_splits_business(sessions: Sessions):
    versions(sessions, 2)
    with transaction(sessions) as session:
        set_traffic(session, MODEL, Traffic({"1": 1.0, "2": 1.0}))
        with pytest.raises(VersionInUse, match="split"):
            step_back(session, MODEL)


def test_a_roll_back_that_others_overtook_changes_nothing(sessions: Sessions):
    versions(sessions, 3)
    with transaction(sessions) as session:
        step = step_back(session, MODEL)
        retire(session, MODEL, 3)
    with transaction(sessions) as session, pytest.raises(VersionInUse, match="at the same time"):
        roll_back(session, MODEL, step)


def test_a_label_goes_back_to_what_it_pointed_to_and_forth_again(sessions: Sessions):
    versions(sessions, 2)
    set_policy(sessions, LATEST)
    with transaction(sessions) as session:
        with pytest.raises(LabelMissing):
            labels.roll_back(session, MODEL, "stable", seen=look(session, MODEL, "stable"))
        restore(session, MODEL, [1])
        set_label(session, MODEL, "stable", 1)
        with pytest.raises(NoVersionBefore):
            labels.roll_back(session, MODEL, "stable", seen=look(session, MODEL, "stable"))
        set_label(session, MODEL, "stable", 2)
        set_label(session, MODEL, "stable", 2)  # the same again changes nothing
    assert states(sessions, MODEL) == {1: "UNLOADING", 2: "AVAILABLE"}
    for number, other in ((1, 2), (2, 1)):
        with transaction(sessions) as session:
            found = labels.roll_back(session, MODEL, "stable", seen=look(session, MODEL, "stable"))
        assert (found.version, found.previous) == (number, other)
        assert catalog(sessions).resolve(MODEL, label="stable").number == number


def test_a_label_cannot_go_back_to_what_was_deleted(sessions: Sessions):
    versions(sessions, 2)
    with transaction(sessions) as session:
        for number in (1, 2):
            set_label(session, MODEL, "stable", number)
        retire(session, MODEL, 1)
        delete_version(session, MODEL, 1)
    with transaction(sessions) as session, pytest.raises(NoVersionBefore):
        labels.roll_back(session, MODEL, "stable", seen=look(session, MODEL, "stable"))


def test_a_label_that_was_moved_while_its_gates_were_tried_does_not_move(sessions: Sessions):
    versions(sessions, 3)
    with transaction(sessions) as session:
        set_label(session, MODEL, "stable", 1)
        seen = look(session, MODEL, "stable")
        set_label(session, MODEL, "stable", 2)
    with transaction(sessions) as session, pytest.raises(LabelMoved):
        set_label(session, MODEL, "stable", 3, seen=seen)
    with transaction(sessions) as session:
        seen = look(session, MODEL, "stable")
        labels.set_gates(session, MODEL, "stable", '{"golden": {}}')
        with pytest.raises(LabelMoved):
            set_label(session, MODEL, "stable", 3, seen=seen)
    assert catalog(sessions).resolve(MODEL, label="stable").number == 2


def test_a_version_ends_only_while_it_is_leaving(sessions: Sessions):
    versions(sessions, 1)
    with transaction(sessions) as session:
        assert not line_up.end(session, MODEL, 1)
        retire(session, MODEL, 1, waited_for=True)
        assert line_up.end(session, MODEL, 1)
    assert states(sessions, MODEL) == {1: State.END}


@pytest.mark.parametrize("leave", [line_up.end, delete_version])
def test_a_version_leaves_under_its_models_lock(sessions: Sessions, leave: Callable[[Session, str, int], object]):
    versions(sessions, 1)
    with transaction(sessions) as session:
        retire(session, MODEL, 1, waited_for=leave is line_up.end)
    statements: list[str] = []
    with transaction(sessions) as session:
        event.listen(session.connection(), "before_cursor_execute", lambda *told: statements.append(str(told[2])))
        leave(session, MODEL, 1)
    # Who restores several versions has changed the generation when it locks the second: a version that leaves must not
    # be locked by somebody who waits for the generation.
    assert "FROM models" in statements[0]
