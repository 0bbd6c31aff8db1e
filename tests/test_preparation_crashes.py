"""A preparation that dies, or finds the machine in trouble: it is done again, given up, or put off."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from sqlalchemy import update

from model_store import registry
from model_store.database import transaction
from tests.onnx_models import line
from tests.shop import NO_REDIS, Shop
from workers.preparation.pipeline import prepare
from workers.tables import Preparation

ROOT = Path(__file__).resolve().parent.parent


def test_a_preparation_that_was_killed_is_done_again_from_the_start(shop: Shop, tmp_path: Path):
    name = shop.upload(line(tmp_path / "line.onnx", weights=[7.0], bias=1.0))
    kill_at(shop, name, "inspect")
    assert shop.look(name).state == "LOADING"

    let_the_lease_run_out(shop, name)
    prepare(shop.sessions, shop.artifacts, shop.settings, name, 1)

    assert shop.look(name).state == "AVAILABLE"
    assert (shop.work(name).attempt, shop.work(name).done) == (2, True)
    for left in shop.settings.scratch_dir.iterdir():  # what the killed process could not remove; workers sweep it
        shutil.rmtree(left)


def kill_at(shop: Shop, name: str, step: str) -> None:
    """Prepares in another process, which is killed once it shows this step."""
    environment = {
        **os.environ,
        "SLUICE_DATABASE_URL": shop.settings.database_url.get_secret_value(),
        "SLUICE_STORE_DIR": str(shop.settings.store_dir),
        "SLUICE_SCRATCH_DIR": str(shop.settings.scratch_dir),
        "SLUICE_REDIS_URL": NO_REDIS,
    }
    process = subprocess.Popen([sys.executable, "-m", "tests.preparing", name, "1"], cwd=ROOT, env=environment)
    until = time.monotonic() + 60
    while shop.work(name).step != step:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def let_the_lease_run_out(shop: Shop, name: str) -> None:
    with transaction(shop.sessions) as session:
        session.execute(update(Preparation).where(Preparation.model == name).values(lease_until=0))


def test_a_preparation_that_was_killed_three_times_is_given_up(shop: Shop, tmp_path: Path):
    name = shop.upload(line(tmp_path / "line.onnx", weights=[8.0], bias=1.0))
    with transaction(shop.sessions) as session:
        session.execute(update(Preparation).where(Preparation.model == name).values(attempt=3, lease_until=0))
    prepare(shop.sessions, shop.artifacts, shop.settings, name, 1)
    assert (shop.look(name).state, shop.look(name).error_code) == ("END", "preparation_crashed")


def test_a_machine_in_trouble_puts_the_preparation_off_and_refuses_nothing(shop: Shop, tmp_path: Path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the scratch folder should be")
    path = line(tmp_path / "line.onnx", weights=[9.0], bias=1.0)

    ended = shop.prepare(path, scratch_dir=blocked)

    assert (ended.state, ended.error_code) == ("LOADING", None)
    name = f"line-{shop.artifacts.add_file(path).digest[:8]}"
    work = shop.work(name)
    assert (work.attempt, work.done, work.lease_until) == (0, False, None)
    with transaction(shop.sessions) as session:
        session.execute(update(Preparation).where(Preparation.model == name).values(next_at=0))
    prepare(shop.sessions, shop.artifacts, shop.settings, name, 1)
    assert shop.look(name).state == "AVAILABLE"


def test_a_version_that_was_retired_before_its_preparation_is_left_alone(shop: Shop, tmp_path: Path):
    name = shop.upload(line(tmp_path / "line.onnx", weights=[10.0], bias=1.0))
    with transaction(shop.sessions) as session:
        registry.retire(session, name, 1)
    prepare(shop.sessions, shop.artifacts, shop.settings, name, 1)
    assert (shop.look(name).state, shop.look(name).error_code) == ("END", None)
    assert shop.work(name).done
