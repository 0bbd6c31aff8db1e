"""Dead letters and other people's jobs: looked at without their contents, tried again, thrown away, by who may."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import select, update

from auth.audit_tables import AuditEntry
from auth.grants import Action, GrantSpec
from auth.limits import EVERYTHING, Bounds, set_limits
from auth.scopes import Scope
from gateway.job_removal import remove
from model_store.database import now_ms, transaction
from model_store.errors import ArtifactMissing
from model_store.files import delete_file, open_file
from tests.live_gateway import refused
from tests.quiet_gateway import QuietGateway, quiet_gateway
from tests.rights_kit import add_client, queue_job, serve, token
from workers import jobs
from workers.erasure import delete_stored
from workers.files import claims
from workers.files.tables import Batch, File
from workers.tables import Job, JobInput
from workers.webhooks import endpoints

MODEL = "net"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("letters"), files_waiting=1) as running:
        serve(running.parts, MODEL)
        yield running


class Letters:
    """A client with jobs that died, and who looks after them."""

    def __init__(self, gateway: QuietGateway, name: str) -> None:
        self.gateway = gateway
        self.parts = gateway.parts
        self.client_id = add_client(self.parts, name, [Scope.PREDICT], [GrantSpec(MODEL, actions=frozenset(Action))])
        self.own = self._http(token(self.parts, self.client_id, [Scope.PREDICT]))
        self.admin = self._as(f"{name}-admin", Scope.JOBS_ADMIN)
        self.reader = self._as(f"{name}-reader", Scope.JOBS_CONTENTS)

    def job(self) -> str:
        """One that waits."""
        return queue_job(self.parts, self.client_id, MODEL)

    def dead(self) -> str:
        """One whose worker died as often as it may."""
        job = self.job()
        self.change(job, state="failed", dead=True, error_code="worker_crashed", finished_at=now_ms(), attempt=3)
        return job

    def dead_file(self) -> str:
        """One that read a file, of two rows, and whose worker died."""
        answer = self.own.post(f"/v1/models/{MODEL}:batch?format=jsonl", content=b"[1,2]\n[3,4]\n")
        assert answer.status_code == 202, answer.text
        job: str = answer.json()["id"]
        self.change(job, state="failed", dead=True, error_code="worker_crashed", finished_at=now_ms(), attempt=3)
        return job

    def batch(self, job: str) -> Batch:
        with transaction(self.parts.sessions, write=False) as session:
            return session.get_one(Batch, self.row(job).number)

    def keeps(self, name: str) -> bool:
        """Whether a file's row and its bytes are there."""
        with transaction(self.parts.sessions, write=False) as session:
            row = session.get(File, name)
        try:
            open_file(self.parts.artifacts, name).close()
        except ArtifactMissing:
            assert row is None
            return False
        return row is not None

    def change(self, job: str, **values: object) -> None:
        with transaction(self.parts.sessions) as session:
            session.execute(update(Job).where(Job.id == job).values(**values))

    def row(self, job: str) -> Job:
        with transaction(self.parts.sessions, write=False) as session:
            return session.scalars(select(Job).where(Job.id == job)).one()

    def close(self) -> None:
        for http in (self.own, self.admin, self.reader):
            http.close()

    def _as(self, name: str, scope: Scope) -> httpx.Client:
        return self._http(token(self.parts, add_client(self.parts, name, [scope]), [scope]))

    def _http(self, headers: dict[str, str]) -> httpx.Client:
        return httpx.Client(base_url=self.gateway.http.base_url, headers=headers, timeout=30)


@pytest.fixture
def letters(gateway: QuietGateway, request: pytest.FixtureRequest) -> Iterator[Letters]:
    made = Letters(gateway, request.node.name[:100].replace("_", "-"))
    yield made
    made.close()


def test_dead_letters_are_listed_and_inspected_without_what_was_in_them(letters: Letters):
    first, second, alive = letters.dead(), letters.dead(), letters.job()
    letters.change(first, error_code="runner_memory")
    own = {"client_id": letters.client_id}
    page = letters.admin.get("/admin/dead-letters", params={**own, "limit": 1}).json()
    assert [job["id"] for job in page["jobs"]] == [second]
    rest = letters.admin.get("/admin/dead-letters", params={**own, "page_token": page["next_page_token"]}).json()
    assert [job["id"] for job in rest["jobs"]] == [first]
    for query, found in (({"error_code": "runner_memory"}, [first]), ({"model": "other"}, []), ({"version": 2}, [])):
        answer = letters.admin.get("/admin/dead-letters", params={**own, **query}).json()
        assert [job["id"] for job in answer["jobs"]] == found
    shown = letters.admin.get(f"/admin/dead-letters/{first}").json()
    assert (shown["error"]["code"], shown["attempts"], shown["dead_letter"]) == ("runner_memory", 3, True)
    assert "input" not in shown
    assert refused(letters.admin.get(f"/admin/dead-letters/{alive}"), 409, "job_not_dead")
    assert refused(letters.admin.get("/admin/dead-letters/x"), 404, "job_not_found")


def test_a_replay_is_a_new_job_with_the_same_input_and_right_and_the_old_one_stays_as_it_is(letters: Letters):
    dead = letters.dead()
    letters.change(dead, grant_id=77, token_id="t", token_issued_at=5, input_digest=b"d" * 32, max_attempts=7)
    before = letters.row(dead)
    answer = letters.admin.post(f"/admin/dead-letters/{dead}/replay")
    assert answer.status_code == 202
    new, old = letters.row(answer.json()["replayed_as"]), letters.row(dead)
    assert (new.state, new.client_id, new.replay_of, new.dead) == ("queued", letters.client_id, dead, False)
    assert (new.grant_id, new.token_id, new.token_issued_at) == (77, "t", 5)
    assert (new.input_digest, new.max_attempts, new.lane) == (b"d" * 32, 7, before.lane)
    assert (old.state, old.finished_at, old.replayed_as) == ("failed", before.finished_at, new.id)
    assert letters.reader.get(f"/admin/jobs/{new.id}/input").content == b"{}"
    # again only where somebody insists
    assert refused(letters.admin.post(f"/admin/dead-letters/{dead}/replay"), 409, "job_replayed")
    assert letters.admin.post(f"/admin/dead-letters/{dead}/replay?force=true").status_code == 202
    assert refused(letters.admin.post(f"/admin/dead-letters/{new.id}/replay"), 409, "job_not_dead")


def test_a_stored_input_is_copied_and_one_that_is_gone_is_told(letters: Letters):
    dead, lost = letters.dead(), letters.dead()
    with transaction(letters.parts.sessions) as session:
        session.execute(update(Job).where(Job.id.in_((dead, lost))).values(input_stored=True))
        for row in session.scalars(select(Job).where(Job.id.in_((dead, lost)))):
            session.delete(session.get_one(JobInput, row.number))
    letters.parts.artifacts.put_payload(jobs.input_name(dead), b'{"large": 1}')
    new = letters.admin.post(f"/admin/dead-letters/{dead}/replay").json()["replayed_as"]
    assert letters.admin.post(f"/admin/dead-letters/{dead}/purge").status_code == 204
    assert letters.reader.get(f"/admin/jobs/{new}/input").content == b'{"large": 1}'
    assert refused(letters.admin.post(f"/admin/dead-letters/{lost}/replay"), 409, "job_input_gone")
    assert letters.row(lost).replayed_as is None


def test_of_many_those_without_an_input_are_refused_and_not_marked_as_replayed(letters: Letters):
    lost, broken, whole = letters.dead(), letters.dead(), letters.dead()
    with transaction(letters.parts.sessions) as session:
        for row in session.scalars(select(Job).where(Job.id.in_((lost, broken)))):
            session.delete(session.get_one(JobInput, row.number))
    letters.change(broken, input_stored=True)
    letters.parts.artifacts.put_payload(jobs.input_name(broken), b"\x01 nobody sealed this")
    answer = letters.admin.post("/admin/dead-letters/replay", json={"client_id": letters.client_id}).json()
    assert ([one["id"] for one in answer["replayed"]], answer["refused"]) == ([whole], 2)
    assert [letters.row(job).replayed_as for job in (lost, broken)] == [None, None]


def test_the_end_of_a_replay_is_told_to_the_endpoints_of_its_client(letters: Letters):
    dead, before = letters.dead(), letters.dead()
    assert letters.own.post(f"/v1/jobs/{before}/replay").status_code == 202
    assert not letters.row(letters.row(before).replayed_as or "").notifies
    with transaction(letters.parts.sessions) as session:
        endpoints.add(session, letters.client_id, "https://receiver.example/ends", (), "")
    letters.parts.snapshot.refresh()
    for replayed in (
        letters.own.post(f"/v1/jobs/{dead}/replay"),
        letters.admin.post(f"/admin/dead-letters/{dead}/replay?force=true"),
    ):
        assert replayed.status_code == 202
        assert letters.row(letters.row(dead).replayed_as or "").notifies


def test_of_two_that_replay_a_job_at_once_one_does(letters: Letters):
    dead = letters.dead()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: letters.admin.post(f"/admin/dead-letters/{dead}/replay"), range(4)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]


def test_many_are_replayed_and_purged_a_page_at_a_time(letters: Letters):
    dead = [letters.dead() for _ in range(3)]
    own = {"client_id": letters.client_id}
    page = letters.admin.post("/admin/dead-letters/replay", json={**own, "limit": 2}).json()
    assert [one["id"] for one in page["replayed"]] == dead[:0:-1]
    rest = letters.admin.post("/admin/dead-letters/replay", json={**own, "page_token": page["next_page_token"]}).json()
    assert [one["id"] for one in rest["replayed"]] == dead[:1]
    assert letters.admin.post("/admin/dead-letters/replay", json=own).json()["replayed"] == []
    assert letters.admin.get("/admin/dead-letters", params={**own, "replayed": False}).json()["jobs"] == []
    purged = letters.admin.post("/admin/dead-letters/purge", json=own).json()
    assert purged == {"deleted": 3, "next_page_token": None}
    assert len(letters.admin.get("/admin/jobs", params=own).json()["jobs"]) == 3


def test_a_page_that_takes_long_ends_early_and_the_next_one_goes_on(letters: Letters, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.routes.dead_letters.REPLAY_SECONDS", 0.0)
    dead = [letters.dead() for _ in range(3)]
    chosen, found = {"client_id": letters.client_id}, []
    while "page_token" not in chosen or chosen["page_token"]:
        page = letters.admin.post("/admin/dead-letters/replay", json=chosen).json()
        assert len(page["replayed"]) == 1
        found.append(page["replayed"][0]["id"])
        chosen["page_token"] = page["next_page_token"]
    assert found == dead[::-1]


def test_a_client_replays_its_own_dead_jobs_by_the_right_that_it_has_now(letters: Letters):
    dead, alive = letters.dead(), letters.job()
    assert letters.own.get(f"/v1/jobs/{dead}").json()["dead_letter"] is True
    answer = letters.own.post(f"/v1/jobs/{dead}/replay")
    document = answer.json()
    assert (answer.status_code, document["state"], document["replay_of"]) == (202, "queued", dead)
    assert answer.headers["location"] == f"/v1/jobs/{document['id']}"
    assert letters.row(document["id"]).grant_id is not None
    assert letters.own.get(f"/v1/jobs/{dead}").json()["replayed_as"] == document["id"]
    assert refused(letters.own.post(f"/v1/jobs/{dead}/replay"), 409, "job_replayed")
    assert refused(letters.own.post(f"/v1/jobs/{alive}/replay"), 409, "job_not_dead")
    with transaction(letters.parts.sessions) as session:
        set_limits(session, letters.client_id, {EVERYTHING: Bounds(queued_jobs=1)})
    letters.parts.snapshot.refresh()
    assert refused(letters.own.post(f"/v1/jobs/{letters.dead()}/replay"), 429, "too_many_queued")


@pytest.mark.usefixtures("one_day")
def test_a_replay_keeps_to_the_limits_of_a_submit_and_one_that_is_refused_counts_for_nothing(letters: Letters):
    dead, second = letters.dead(), letters.dead()
    with transaction(letters.parts.sessions) as session:
        bounds = {EVERYTHING: Bounds(instances_per_day=2), MODEL: Bounds(requests_per_second=0.001, burst=2)}
        set_limits(session, letters.client_id, bounds)
    letters.parts.snapshot.refresh()
    assert letters.own.post(f"/v1/jobs/{dead}/replay").headers["ratelimit"].startswith('"instances";r=1')
    assert refused(letters.own.post(f"/v1/jobs/{dead}/replay"), 409, "job_replayed")
    assert refused(letters.own.post(f"/v1/jobs/{second}/replay"), 429, "rate_limited")
    with transaction(letters.parts.sessions) as session:
        set_limits(session, letters.client_id, {EVERYTHING: Bounds(instances_per_day=2)})
    letters.parts.snapshot.refresh()
    assert letters.own.post(f"/v1/jobs/{second}/replay").status_code == 202
    assert refused(letters.own.post(f"/v1/jobs/{letters.dead()}/replay"), 429, "quota_spent")


def test_a_file_is_replayed_from_its_first_row_and_not_copied(letters: Letters):
    dead = letters.dead_file()
    answer = letters.own.post(f"/v1/jobs/{dead}/replay")
    assert answer.status_code == 202, answer.text
    old, new = letters.batch(dead), letters.batch(answer.json()["id"])
    row = letters.row(answer.json()["id"])
    assert (row.kind, row.state, row.instances, row.replay_of, row.lane) == ("file", "queued", 2, dead, "")
    assert (new.input_file, new.owns_input, new.read_rows, new.checkpoint) == (old.input_file, False, 0, None)
    assert new.output_file != old.output_file
    assert row.deadline is not None
    assert row.deadline - row.created_at == letters.parts.settings.file_seconds * 1000
    # and a background worker finds all that it reads it by
    with transaction(letters.parts.sessions) as session:
        claimed = claims.claim(session, row.number, "background:b", 1, [])
        assert claimed is not None
        under = claims.under(session, claimed)
    assert (under.input_file, under.format, under.total) == (old.input_file, "jsonl", 2)
    assert letters.admin.post(f"/admin/dead-letters/{dead}/replay?force=true").status_code == 202


def test_a_file_goes_with_the_last_job_that_reads_it(letters: Letters):
    dead = letters.dead_file()
    new = letters.own.post(f"/v1/jobs/{dead}/replay").json()["id"]
    name = letters.batch(dead).input_file
    assert letters.admin.post(f"/admin/dead-letters/{dead}/purge").status_code == 204
    assert letters.keeps(name)
    assert letters.batch(new).owns_input
    assert letters.own.delete(f"/v1/jobs/{new}").status_code == 204
    assert not letters.keeps(name)


def test_a_file_that_is_gone_is_told_with_what_to_do(letters: Letters):
    gone, damaged = letters.dead_file(), letters.dead_file()
    delete_file(letters.parts.artifacts, letters.batch(gone).input_file)
    answer = letters.own.post(f"/v1/jobs/{gone}/replay")
    assert refused(answer, 409, "job_input_gone")
    assert "upload it again" in answer.json()["detail"]
    with transaction(letters.parts.sessions) as session:
        session.execute(update(File).where(File.id == letters.batch(damaged).input_file).values(expires_at=1))
    assert refused(letters.admin.post(f"/admin/dead-letters/{damaged}/replay"), 409, "job_input_gone")
    many = letters.admin.post("/admin/dead-letters/replay", json={"client_id": letters.client_id}).json()
    assert (many["replayed"], many["refused"]) == ([], 2)


def test_no_more_files_wait_for_their_replay_than_may_wait_at_all(letters: Letters):
    first, second = letters.dead_file(), letters.dead_file()
    assert letters.own.post(f"/v1/jobs/{first}/replay").status_code == 202
    assert refused(letters.own.post(f"/v1/jobs/{second}/replay"), 429, "too_many_queued")


def test_administrators_list_cancel_and_delete_jobs_of_everybody(letters: Letters):
    waiting, dead = letters.job(), letters.dead()
    own = {"client_id": letters.client_id}
    for query, found in (
        ({}, [dead, waiting]), ({"state": "queued"}, [waiting]), ({"dead": True}, [dead]), ({"dead": False}, [waiting]),
        ({"model": "x"}, []), ({"kind": "file"}, []), ({"error_code": "worker_crashed"}, [dead]),
        ({"before": "2999-01-01T00:00:00Z"}, [dead]), ({"version": 1}, [dead, waiting]),
    ):  # fmt: skip
        answer = letters.admin.get("/admin/jobs", params={**own, **query})
        assert [job["id"] for job in answer.json()["jobs"]] == found, query
    assert letters.admin.get(f"/admin/jobs/{waiting}").json()["client_id"] == letters.client_id
    canceled = letters.admin.post(f"/admin/jobs/{waiting}/cancel").json()
    assert canceled["error"] == {"code": "canceled", "message": "an administrator canceled it"}
    assert refused(letters.admin.post(f"/admin/jobs/{waiting}/cancel"), 409, "job_ended")
    assert letters.admin.delete(f"/admin/jobs/{dead}").status_code == 204
    assert refused(letters.own.get(f"/v1/jobs/{dead}"), 404, "job_not_found")
    letters.job()
    gone = letters.admin.delete(f"/admin/clients/{letters.client_id}/jobs").json()
    assert gone == {"deleted": 2, "next_page_token": None}
    assert letters.own.get("/v1/jobs").json()["jobs"] == []


def test_who_names_a_client_where_its_id_is_wanted_is_told_so(letters: Letters):
    listed = [letters.admin.get(path, params={"client_id": "demo"}) for path in ("/admin/jobs", "/admin/dead-letters")]
    wanted = "the client's id is wanted (cli_…), not its name: GET /admin/clients lists both"
    for answer in (*listed, letters.admin.delete("/admin/clients/demo/jobs")):
        assert refused(answer, 422, "request_invalid")
        assert answer.json()["detail"].endswith(f".client_id: {wanted}")


def test_contents_are_deleted_before_redis_is_told_of_anything(letters: Letters):
    waiting = [letters.job() for _ in range(2)]
    with transaction(letters.parts.sessions) as session:
        found = session.scalars(select(Job).where(Job.id.in_(waiting))).all()
        first, *others = remove(letters.parts, session, found).tasks
    assert first.func is delete_stored
    assert len(others) == 4


def test_contents_need_a_right_of_their_own_and_each_reading_is_an_entry_of_the_audit_log(letters: Letters):
    job = letters.job()
    for path in ("input", "result"):
        assert refused(letters.admin.get(f"/admin/jobs/{job}/{path}"), 403, "insufficient_scope")
    assert letters.reader.get(f"/admin/jobs/{job}/input").content == b"{}"
    assert refused(letters.reader.get(f"/admin/jobs/{job}/result"), 409, "job_not_ended")
    assert refused(letters.reader.get("/admin/jobs"), 403, "insufficient_scope")
    with transaction(letters.parts.sessions, write=False) as session:
        read = session.scalars(select(AuditEntry).where(AuditEntry.act == "read_job_input")).all()
    assert [letters.client_id in entry.detail and job in entry.detail for entry in read].count(True) == 1
