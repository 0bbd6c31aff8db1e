"""The work of preparing versions as rows: who may do it, for how long, and how often."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import update

from model_store import registry
from model_store.database import Sessions, connect, sessions_of, transaction
from tests.databases import make_tables
from tests.publishing import upload
from workers.preparation import schedule
from workers.preparation.lease import Lease, LeaseLost
from workers.preparation.schedule import Claim
from workers.settings import WorkerSettings
from workers.tables import Preparation


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    """A migrated database with version 1 of `mnist`, waiting for its preparation."""
    settings = WorkerSettings(database_url=database_url)
    make_tables(settings)
    engine = connect(settings)
    found = sessions_of(engine)
    upload(found)
    with transaction(found) as session:
        schedule.create(session, "mnist", 1)
    yield found
    engine.dispose()


def claim(sessions: Sessions) -> Claim | None:
    with transaction(sessions) as session:
        return schedule.claim(session, "mnist", 1)


def claimed(sessions: Sessions) -> Claim:
    found = claim(sessions)
    assert found is not None
    return found


def due(sessions: Sessions) -> list[tuple[str, int]]:
    with transaction(sessions) as session:
        return schedule.due(session, 10)


def let_the_lease_run_out(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        session.execute(update(Preparation).values(lease_until=0))


def test_new_work_is_due_and_is_claimed_once(sessions: Sessions):
    assert due(sessions) == [("mnist", 1)]
    assert claim(sessions) == Claim("mnist", 1, fence=1, attempt=1)
    assert due(sessions) == []
    assert claim(sessions) is None


def test_work_of_a_worker_that_died_is_taken_over_and_its_late_writes_are_refused(sessions: Sessions):
    dead = claimed(sessions)
    let_the_lease_run_out(sessions)

    heir = claimed(sessions)

    assert (heir.fence, heir.attempt) == (2, 2)
    with transaction(sessions) as session:
        assert not schedule.renew(session, dead)
        assert not schedule.step(session, dead, "load")
        assert not schedule.postpone(session, dead, 1)
        assert not schedule.finish(session, dead)
        assert schedule.step(session, heir, "load")


def test_finished_work_is_never_due_again(sessions: Sessions):
    held = claimed(sessions)
    with transaction(sessions) as session:
        assert schedule.finish(session, held)
    assert due(sessions) == []
    assert claim(sessions) is None


def test_postponed_work_is_due_later_and_the_attempt_does_not_count(sessions: Sessions):
    held = claimed(sessions)
    with transaction(sessions) as session:
        assert schedule.postpone(session, held, 60)
    assert due(sessions) == []
    with transaction(sessions) as session:
        session.execute(update(Preparation).values(next_at=0))
    assert claimed(sessions).attempt == 1


def test_a_lease_is_renewed_while_it_is_held(sessions: Sessions):
    with Lease(sessions, claimed(sessions), renew_seconds=0.02) as lease:
        let_the_lease_run_out(sessions)
        until = time.monotonic() + 10
        while due(sessions):
            assert time.monotonic() < until
        lease.announce("load")
    with transaction(sessions) as session:
        row = session.get_one(Preparation, ("mnist", 1))
        assert (row.step, row.done) == ("load", False)


def test_a_worker_whose_lease_was_taken_over_learns_it_at_its_next_step(sessions: Sessions):
    with Lease(sessions, claimed(sessions)) as lease:
        let_the_lease_run_out(sessions)
        claimed(sessions)
        with pytest.raises(LeaseLost):
            lease.announce("load")


def test_deleting_a_version_takes_its_work_along(sessions: Sessions):
    with transaction(sessions) as session:
        registry.retire(session, "mnist", 1)
        registry.delete_version(session, "mnist", 1)
    assert due(sessions) == []
