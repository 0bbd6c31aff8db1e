"""A preparation that dies, or finds the machine in trouble: it is done again, given up, or put off."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from model_store import registry
from model_store.database import transaction
from model_store.variant_policies import VariantPolicy, set_policy
from tests.onnx_models import line
from tests.preparing import PUBLISH
from tests.shop import NO_REDIS, Shop
from tests.test_savedmodel_uploads import ALLOWED, zipped
from tests.test_savedmodel_uploads import saved_models as saved_models
from workers.preparation.pipeline import prepare
from workers.tables import Preparation

ROOT = Path(__file__).resolve().parent.parent
TWO_VARIANTS = VariantPolicy(("onnx", "onnx-int8"), top1_floor=0.9)
STEPS = ("receive", "inspect", "rebuild", "load", "convert", "parity", "variants", "measure", "store", "warm", PUBLISH)
# Only a SavedModel has it.
SIGNATURES = "signatures"
# Each case takes seconds: an early step, and the one at which the version is written down already.
OFTEN = ("inspect", PUBLISH)


@pytest.fixture(autouse=True)
def swept(shop: Shop) -> Iterator[None]:
    """What killed processes could not remove; workers sweep it."""
    yield
    for left in shop.settings.scratch_dir.iterdir():
        shutil.rmtree(left)


@pytest.mark.parametrize(
    "step", [step if step in OFTEN else pytest.param(step, marks=pytest.mark.long) for step in STEPS]
)
def test_a_preparation_that_was_killed_is_done_again_from_the_start(shop: Shop, tmp_path: Path, step: str):
    name = shop.upload(line(tmp_path / "line.onnx", weights=[100.0 + STEPS.index(step)], bias=1.0))
    with transaction(shop.sessions) as session:
        set_policy(session, name, TWO_VARIANTS)
    again_after_a_kill(shop, name, step)
    assert {row["name"] for row in shop.look(name).report["variants"]} >= {"onnx", "onnx-int8"}


@pytest.mark.long
@pytest.mark.timeout(600)  # TensorFlow is imported several times
def test_a_preparation_that_was_killed_at_further_signatures_is_done_again(
    shop: Shop, saved_models: Path, tmp_path: Path
):
    allowing = replace(shop, settings=shop.settings.model_copy(update={"upload_formats": ALLOWED}))
    name = allowing.upload(zipped(saved_models / "several", tmp_path / "several"), "savedmodel")
    again_after_a_kill(allowing, name, SIGNATURES)
    assert [row["name"] for row in shop.look(name).report["signatures"] if row["served"]]


def test_a_preparation_is_killed_here_at_every_step_that_there_is():
    code = "".join(path.read_text() for path in (ROOT / "workers" / "preparation").glob("*.py"))
    assert {*STEPS, SIGNATURES} == {*re.findall(r"report\.step\(\"(\w+)\"\)", code), PUBLISH}


def again_after_a_kill(shop: Shop, name: str, step: str) -> None:
    """Has a first preparation killed at a step: it is not stuck, but done by whoever comes after its lease."""
    killed_at(shop, name, step)
    assert (shop.look(name).state, shop.work(name).done) == ("LOADING", False)
    assert shop.work(name).step == ("warm" if step == PUBLISH else step)
    prepare(shop.sessions, shop.artifacts, shop.settings, name, 1)
    assert shop.look(name).state == "LOADING", "its lease was not waited for"

    let_the_lease_run_out(shop, name)
    prepare(shop.sessions, shop.artifacts, shop.settings, name, 1)

    ended = shop.look(name)
    assert (ended.state, ended.error_code) == ("AVAILABLE", None)
    assert {row["outcome"] for row in ended.report["steps"]} == {"ok"}
    assert [row["name"] for row in ended.report["steps"]][-1] == "warm"
    assert (shop.work(name).attempt, shop.work(name).done) == (2, True)


def killed_at(shop: Shop, name: str, step: str) -> None:
    """Prepares in another process, which is killed as it comes to this step."""
    environment = {
        **os.environ,
        "SLUICE_DATABASE_URL": shop.settings.database_url.get_secret_value(),
        "SLUICE_STORE_DIR": str(shop.settings.store_dir),
        "SLUICE_SCRATCH_DIR": str(shop.settings.scratch_dir),
        "SLUICE_REDIS_URL": NO_REDIS,
        "SLUICE_UPLOAD_FORMATS": shop.settings.upload_formats,
    }
    command = [sys.executable, "-m", "tests.preparing", name, "1", step, "self"]
    assert subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == -signal.SIGKILL


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
