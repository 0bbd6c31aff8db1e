"""An installation whose store is a bucket, all of whose processes are on machines of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from auth import clients
from auth.grants import ADMINISTRATION, GrantSpec, set_grants
from model_store.artifacts import Artifacts
from model_store.database import connect, sessions_of, transaction
from tests.chaos.proxy import Mode
from tests.conftest import RedisServer
from tests.databases import make_tables
from tests.live_gateway import eventually
from tests.processes import Cluster, cluster, ready, wait_for
from tests.queue_kit import doubling_model
from tests.s3_kit import S3Server, s3_server
from tests.shop import Shop
from workers.preparation.pipeline import prepare
from workers.settings import WorkerSettings

ROWS = 8000
PREPARED_SECONDS = 90
ENDED_SECONDS = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as made:
        yield made


def test_a_preparation_is_put_off_while_the_store_is_away_and_then_goes_on(server: S3Server, tmp_path: Path):
    place = server.settings(tmp_path / "store", "put-off")
    (tmp_path / "scratch").mkdir()
    settings = WorkerSettings(
        database_url=f"sqlite:///{tmp_path / 'sluice.db'}", scratch_dir=tmp_path / "scratch", **place
    )
    make_tables(settings)
    engine = connect(settings)
    shop = Shop(sessions_of(engine), Artifacts.of(settings), settings)
    name = shop.upload(doubling_model(tmp_path / "double.onnx"))
    # As on the machine of a preparing worker, which the upload did not come to.
    elsewhere = Artifacts.of(settings.model_copy(update={"store_dir": tmp_path / "elsewhere"}))

    with server.failing(Mode.CUT):
        prepare(shop.sessions, elsewhere, settings, name, 1)

    assert (shop.look(name).state, shop.work(name).attempt, shop.work(name).done) == ("LOADING", 0, False)
    elsewhere.store._bucket._rests_until = 0.0  # type: ignore[attr-defined]

    def prepared() -> bool:
        prepare(shop.sessions, elsewhere, settings, name, 1)
        return shop.look(name).state == "AVAILABLE"

    eventually(prepared)
    served = shop.look(name).served
    assert served is not None
    assert shop.artifacts.exists(served.digest)
    engine.dispose()


@pytest.fixture(scope="module")
def running(redis_server: RedisServer, server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("bucket")
    with cluster(folder, redis_server.url, f"sqlite:///{folder / 'sluice.db'}") as made:
        # Each process as on a machine of its own.
        made.start_gateway(**server.settings(folder / "gateway", "whole", storage_key="s" * 43))
        for kind in ("worker", "prepare-worker", "background-worker"):
            made.start(kind, worker_name=kind, **server.settings(folder / kind, "whole", storage_key="s" * 43))
        wait_for(lambda: ready(made.gateways[0]).get("slots", 0) == 2, PREPARED_SECONDS)
        yield made


@pytest.fixture(scope="module")
def caller(running: Cluster, tmp_path_factory: pytest.TempPathFactory) -> httpx.Client:
    """A client that has uploaded the model `far`, which is available and loaded."""
    client = running.caller()
    with transaction(running.sessions) as session:
        [made] = clients.page(session)
        set_grants(session, made.id, [GrantSpec("*", actions=ADMINISTRATION), GrantSpec("far")])
    path = doubling_model(tmp_path_factory.mktemp("upload") / "far.onnx", 2)
    upload = "/admin/models/far/versions?format=onnx"
    wait_for(lambda: client.put(upload, content=path.read_bytes()).status_code in (200, 202), 10)
    wait_for(lambda: client.get("/admin/models/far/versions/1").json()["state"] == "AVAILABLE", PREPARED_SECONDS)
    wait_for(lambda: predict(client).status_code == 200, 20)
    return client


def predict(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/models/far:predict", json={"instances": [[1.0, 2.0]]})


def ended(client: httpx.Client, job: str) -> dict[str, object]:
    until = time.monotonic() + ENDED_SECONDS
    while (found := client.get(f"/v1/jobs/{job}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < until, found
        time.sleep(0.1)
    return dict(found)


@pytest.mark.long  # four processes and a preparation
def test_large_inputs_results_and_files_go_through_the_bucket(caller: httpx.Client):
    submitted = caller.post("/v1/models/far:submit", json={"instances": [[1.125, 2.0]] * ROWS}).json()
    job = ended(caller, submitted["id"])
    assert job["state"] == "succeeded"
    by_address = httpx.get(f"{caller.base_url}{job['result_url']}")
    assert by_address.json() == {"predictions": [[2.25, 4.0]] * ROWS}

    rows = b"".join(b"[%d,1]\n" % number for number in range(20_000))
    file = ended(caller, caller.post("/v1/models/far:batch?format=jsonl", content=rows).json()["id"])
    assert file["state"] == "succeeded"
    lines = httpx.get(f"{caller.base_url}{file['result_url']}").text.splitlines()
    assert len(lines) == 20_000
    assert caller.delete(f"/v1/jobs/{submitted['id']}").status_code == 204


@pytest.mark.long  # as above
def test_what_needs_no_store_goes_on_while_it_is_away_and_the_rest_is_told_so(server: S3Server, caller: httpx.Client):
    large = {"instances": [[1.0, 2.0]] * ROWS}
    before = caller.post("/v1/models/far:submit", json=large).json()["id"]
    ended(caller, before)

    with server.failing(Mode.CUT):
        small = caller.post("/v1/models/far:submit", json={"instances": [[3.0, 4.0]]}).json()
        refused = [
            caller.post("/v1/models/far:submit", json=large),
            caller.put("/admin/models/other/versions?format=onnx", content=b"a model"),
            caller.get(f"/v1/jobs/{before}/result"),
        ]
        assert predict(caller).json() == {"predictions": [[2.0, 4.0]]}
        assert ended(caller, small["id"])["predictions"] == [[6.0, 8.0]]
    assert [answer.status_code for answer in refused] == [503, 503, 503]
    assert all("the store does not answer" in answer.text for answer in refused)
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)

    wait_for(lambda: caller.get(f"/v1/jobs/{before}/result").status_code == 200, 20)
    again = caller.post("/v1/models/far:submit", json=large).json()
    assert ended(caller, again["id"])["state"] == "succeeded"
