"""What the databases do for each question about jobs: no cost may grow with how many wait or have ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, select, text, update

from auth.standing import Standing
from gateway import ended_jobs
from gateway.ended_jobs import Place
from gateway.job_listing import Wanted, page_of
from gateway.page_tokens import PageTokens
from gateway.routes.jobs import newest_first
from model_store.database import Sessions, clock_ms, connect, now_ms, sessions_of, transaction
from model_store.sealing import SealingKeys
from tests.databases import make_tables
from tests.queue_kit import worker_settings
from workers import jobs, layout, retention, waiting
from workers.erasure import erase
from workers.lanes import Lane, Priority
from workers.tables import Job

LANE = Lane("digit", 1, Priority.BULK, "c")
JOBS = 6000
GROUP = 500


@pytest.fixture
def engine(database_url: str, tmp_path: Path) -> Iterator[Engine]:
    """A database in which thousands of jobs have ended and thousands wait."""
    settings = worker_settings("redis://127.0.0.1:1", database_url, tmp_path)
    make_tables(settings)
    made = connect(settings)
    sessions = sessions_of(made)
    for _ in range(JOBS // GROUP):
        with transaction(sessions) as session:
            jobs.accept(session, [jobs.Draft(jobs.new_id(), LANE, "d", 1, b"body", 3600) for _ in range(GROUP)], JOBS)
    # Its figures are those of a moment ago, as always where jobs come and go.
    if made.dialect.name == "postgresql":
        with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
    with transaction(sessions) as session:
        session.execute(update(Job).where(Job.number <= JOBS // 2).values(state="succeeded", finished_at=now_ms()))
    yield made
    made.dispose()


class Plans:
    """Notes how the database goes about each statement that asks for jobs, just before it does so."""

    def __init__(self, engine: Engine) -> None:
        self.found: dict[str, str] = {}
        self._explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
        event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, connection: Connection, _cursor: object, statement: str, parameters: object, *rest: object) -> None:
        asks = "jobs" in statement and statement.startswith(("SELECT", "UPDATE", "DELETE"))
        many = rest[-1]
        if asks and not many:
            rows = connection.connection.cursor().execute(self._explain + statement, parameters).fetchall()
            self.found[statement] = "\n".join(str(row[-1]) for row in rows)

    def reading_everything(self) -> dict[str, str]:
        """Statements that go through the whole table, or through all jobs in the order of their numbers."""
        return {statement: plan for statement, plan in self.found.items() if reads_everything(plan)}


def reads_everything(plan: str) -> bool:
    lines = plan.split("\n")
    whole = any(line == "SCAN jobs" or "Seq Scan on jobs" in line for line in lines)
    return whole or any(
        "using pk_jobs on jobs" in line and "Index Cond" not in following
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
    )


def ask_everything(sessions: Sessions) -> None:
    """Every question that is asked again and again while jobs come and go."""
    with transaction(sessions) as session:
        layout.lay_out(session, LANE.name, 100)
        layout.take_back_lost(session, LANE.name, 5)
        jobs.claim(session, range(JOBS // 2 + 1, JOBS // 2 + 50), ("digit", 1), "w", Standing())
        jobs.finish(session, [jobs.Ending(JOBS // 2 + 1, 1, b"{}")])
        jobs.renew(session, [JOBS], "w")
        jobs.overdue(session)
        jobs.recover(session, ())
        jobs.expire(session)
        jobs.cancel(session, session.get_one(Job, JOBS - 1))
        jobs.claim_file(session, JOBS, "w")
        jobs.progress(session, JOBS, 1, 0, 1)
        jobs.due_files(session, 10)
        jobs.end_orphans(session)
        retention.purge_ended(session, 3600, 0)
        retention.purge_dead(session, 3600)
        retention.purge_client(session, "c", 3600)
        retention.orphaned(session, ["abc.input", "abc.1.result"])
        erase(session, [JOBS // 2 + 2], untold=True)
        for wanted in (Wanted(), Wanted("c"), Wanted(dead=True), Wanted("c", dead=True)):
            page_of(session, PageTokens(SealingKeys([b"k" * 32])), wanted, 20, most_looked_at=100)
        waiting.oldest(session)
        waiting.unfinished(session, "digit", 1)
        last = session.scalars(select(Job).where(Job.number == JOBS)).one()
        waiting.position(session, last)
        session.scalars(newest_first("c").limit(20)).all()
        now = clock_ms(session)
        ended_jobs.page(session, ["c"], Place(now - 60_000))
        ended_jobs.page(session, ["c", "d"], Place(now, JOBS))
        ended_jobs.late(session, ["c"], ["some", "ids"], now)
        ended_jobs.running(session, ["c"])


def test_no_question_about_jobs_reads_all_of_them(engine: Engine):
    plans = Plans(engine)
    ask_everything(sessions_of(engine))
    assert len(plans.found) > 10
    assert plans.reading_everything() == {}
