"""Claims of files, without a process around them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from sqlalchemy import select

from model_store.database import transaction
from model_store.errors import ArtifactMissing
from tests.conftest import RedisServer
from tests.job_kit import numbers_of
from tests.queue_kit import make_queue, worker_settings
from workers import jobs
from workers.files import claims
from workers.files.keeping import INPUT, OUTPUT, new_file_id
from workers.files.reading import Place, Reading
from workers.files.tables import Batch, File
from workers.lanes import Priority
from workers.tables import Job


def test_a_result_that_lacks_rows_is_never_called_whole(redis_server: RedisServer, tmp_path: Path):
    queue = make_queue(worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path), tmp_path)
    # given a file that was read to its end, of whose chunks one is gone though its lines were never written
    names = [new_file_id(), new_file_id()]
    with queue.artifacts.receive_file(names[0], 100) as receipt:
        receipt.write(b"[1,2]\n[3,4]\n")
        receipt.commit()
    draft = jobs.Draft(jobs.new_id(), queue.lane(Priority.BULK), "rows", 2, None, 60, kind="file")
    with transaction(queue.sessions) as session:
        jobs.accept(session, [draft], 0)
        number = session.scalars(select(Job.number)).one()
        for name, purpose in zip(names, (INPUT, OUTPUT), strict=True):
            session.add(
                File(
                    id=name, client_id=queue.client_id, name="f", purpose=purpose, format="jsonl", created_at=0,
                    expires_at=2**53 - 1,
                )
            )  # fmt: skip
        session.add(Batch(job=number, input_file=names[0], output_file=names[1], whole=True, read_rows=2))
    with transaction(queue.sessions) as session:
        claimed = jobs.claim_file(session, number, "background:b")
        assert claimed is not None
        under = claims.under(session, claimed)
    # when it is read on
    reading = Reading(Place(queue.settings, queue.sessions, queue.artifacts), under, 2, threading.Event())
    # then it does not succeed
    with pytest.raises(ArtifactMissing, match="answers to some rows"):
        reading.run(lambda: False)
    queue.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer
def test_of_two_workers_that_claim_files_of_one_client_at_once_one_does(
    redis_server: RedisServer, database_url: str, tmp_path: Path
):
    queue = make_queue(worker_settings(redis_server.url, database_url, tmp_path), tmp_path)
    drafts = [jobs.Draft(jobs.new_id(), queue.lane(Priority.BULK), "rows", 2, None, 60, kind="file") for _ in "ab"]
    with transaction(queue.sessions) as session:
        jobs.accept(session, drafts, 0)
        first, second = numbers_of(session, drafts)

    def claimed(number: int) -> jobs.Claimed | None:
        with transaction(queue.sessions) as session:
            return claims.claim(session, number, "background:b", 1, [])

    with ThreadPoolExecutor(1) as other:
        # given one that has claimed the only file that may be read, and has not committed yet
        with transaction(queue.sessions) as session:
            assert claims.claim(session, first, "background:a", 1, []) is not None
            late = other.submit(claimed, second)
            wait([late], timeout=0.5)
        # then the other counts it
        assert late.result(10) is None
    # and a file that was taken is taken by nobody else, where more may be read
    with transaction(queue.sessions) as session:
        assert claims.claim(session, second, "background:b", 2, []) is not None
        assert claims.claim(session, second, "background:c", 3, []) is None
    queue.close()
