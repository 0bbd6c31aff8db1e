"""OpenAI's files in SQL: what a page costs, and that what is told of one file is of one moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from gateway import openai_files
from model_store.database import Sessions, clock_ms, transaction
from tests.quiet_gateway import quiet_gateway
from workers.files.keeping import BATCH_OUTPUT, NEVER
from workers.files.tables import Batch, File

CLIENT = "cli_a"


@pytest.fixture
def sessions(tmp_path: Path, database_url: str) -> Iterator[Sessions]:
    with quiet_gateway(tmp_path, database_url=database_url) as running:
        yield running.parts.sessions


def output(session: Session, number: int, failed_bytes: int = 0) -> None:
    """An output file of 100 bytes, of which some are of requests that failed."""
    file = File(
        id=f"file_{number}", client_id=CLIENT, name="x.jsonl", purpose=BATCH_OUTPUT, format="jsonl", size_bytes=100,
        created_at=clock_ms(session), expires_at=NEVER, parts="[]",
    )  # fmt: skip
    failed_rows = 1 if failed_bytes else 0
    batch = Batch(job=number, input_file="file_in", output_file=file.id, failed_rows=failed_rows)
    batch.failed_bytes = failed_bytes
    session.add_all((file, batch))


def statements(sessions: Sessions, limit: int) -> tuple[int, list[int]]:
    """How many statements a page of files takes, and the files' sizes."""
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM files" in statement or "FROM batches" in statement:
            asked.append(statement)

    with transaction(sessions, write=False) as session:
        engine = session.connection().engine
        event.listen(engine, "before_cursor_execute", note)
        try:
            found = openai_files.page(session, CLIENT, None, limit, None, newest_first=False)
        finally:
            event.remove(engine, "before_cursor_execute", note)
    return len(asked), [file.bytes for file in found]


def test_a_page_costs_the_same_however_many_files_it_has(sessions: Sessions):
    with transaction(sessions) as session:
        for number in range(30):
            output(session, number, failed_bytes=number)
    few, _ = statements(sessions, 2)
    many, sizes = statements(sessions, 60)
    assert many == few == 1
    assert sorted(sizes) == sorted([*range(1, 30), *range(71, 101)])


def test_what_failed_of_a_batch_is_listed_behind_its_answers_whatever_the_pages(sessions: Sessions):
    with transaction(sessions) as session:
        for number, failed_bytes in enumerate((10, 0, 30)):
            output(session, number, failed_bytes)
    wanted = ["file_0", "file_0-errors", "file_1", "file_2", "file_2-errors"]
    for size in (1, 2, 3):
        found: list[str] = []
        with transaction(sessions, write=False) as session:
            while page := openai_files.page(
                session, CLIENT, None, size, found[-1] if found else None, newest_first=False
            ):
                found += [file.id for file in page]
        assert found == wanted


def test_both_ids_of_an_output_have_their_part_of_its_bytes(sessions: Sessions):
    with transaction(sessions) as session:
        output(session, 1, failed_bytes=30)
    with transaction(sessions, write=False) as session:
        shown = [openai_files.find(session, name, CLIENT).shown.bytes for name in ("file_1", "file_1-errors")]
    assert shown == [70, 30]
