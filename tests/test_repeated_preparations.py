"""Preparing a version again: it serves meanwhile, changes as a whole or not at all, and survives any kill."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, update

from model_store import registry, variant_policies
from model_store.database import transaction
from model_store.registry import Served
from model_store.tables import Variant, Version
from model_store.variant_policies import VariantPolicy
from tests.onnx_models import classifier
from tests.shop import Shop
from workers.preparation import schedule
from workers.preparation.pipeline import prepare
from workers.runtimes.loading import load
from workers.tables import Preparation

ROOT = Path(__file__).resolve().parent.parent
HALF = VariantPolicy(("onnx", "onnx-fp16"), serve="onnx-fp16", top1_floor=0.9)
NUMBERS = itertools.count()
STEPS = ("receive", "inspect", "rebuild", "load", "convert", "parity", "variants", "measure", "store")


@pytest.fixture(scope="module")
def name(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A version that serves; what it serves differs from test to test."""
    return serving(shop, tmp_path_factory.mktemp("upload") / "again.onnx")


@pytest.fixture(autouse=True)
def swept(shop: Shop) -> Iterator[None]:
    """Folders that the killed left behind, which workers sweep."""
    yield
    for left in shop.settings.scratch_dir.iterdir():
        shutil.rmtree(left)


def serving(shop: Shop, path: Path) -> str:
    """The model of a version that serves, of weights that no other has."""
    found = shop.upload(classifier(path, scale=1.0 + next(NUMBERS)))
    prepare(shop.sessions, shop.artifacts, shop.settings, found, 1)
    return found


def again(shop: Shop, name: str, policy: VariantPolicy) -> bool:
    with transaction(shop.sessions) as session:
        return schedule.repeat(session, name, 1, json.dumps(policy.to_json()))


def go_on(shop: Shop, name: str, **settings: object) -> None:
    """What the sweep brings about once the lease of a dead worker ran out."""
    with transaction(shop.sessions) as session:
        session.execute(update(Preparation).where(Preparation.model == name).values(lease_until=0))
    prepare(shop.sessions, shop.artifacts, shop.settings.model_copy(update=settings), name, 1)


def served(shop: Shop, name: str) -> Served:
    found = shop.look(name).served
    assert found is not None
    return found


def broken_off(shop: Shop, name: str, step: str, whom: str) -> None:
    """Prepares in a process that loses its runners, or itself, at this step."""
    environment = {
        **os.environ,
        "SLUICE_DATABASE_URL": shop.settings.database_url.get_secret_value(),
        "SLUICE_STORE_DIR": str(shop.settings.store_dir),
        "SLUICE_SCRATCH_DIR": str(shop.settings.scratch_dir),
    }
    subprocess.run(
        [sys.executable, "-m", "tests.preparing", name, "1", step, whom], cwd=ROOT, env=environment, timeout=120,
        check=False,
    )  # fmt: skip


def test_a_version_serves_while_it_is_prepared_again_and_changes_as_a_whole(shop: Shop, tmp_path: Path):
    # given a version that serves as ONNX
    name = serving(shop, tmp_path / "whole.onnx")
    before = served(shop, name)
    # when it is to be prepared again
    assert again(shop, name, HALF)
    assert not again(shop, name, VariantPolicy()), "one at a time"
    waiting = served(shop, name)
    go_on(shop, name)
    # then it served as it was until all was done, and the new variant serves now
    assert waiting == before
    after = served(shop, name)
    assert (after.variant, after.runtime, shop.work(name).done) == ("onnx-fp16", "onnx", True)
    assert after.digest != before.digest
    answer = load(after, shop.artifacts, shop.settings).run({"x": np.zeros((2, 64), np.float32)})
    assert answer["y"].shape == (2, 8)
    # and the old variant, asked for as well, is still what it was
    with transaction(shop.sessions, write=False) as session:
        rows = {row.name: row.digest for row in session.scalars(select(Variant).where(Variant.model == name))}
    assert rows == {"onnx": before.digest, "onnx-fp16": after.digest}
    assert shop.look(name).report["policy"] == HALF.to_json()


def test_a_repeat_that_fails_changes_nothing_but_what_the_report_says(shop: Shop, name: str):
    before = shop.look(name)
    again(shop, name, VariantPolicy(("pruned",), serve="pruned", top1_floor=1.0, absolute=0.0))
    go_on(shop, name, preparation_seconds=0.001)
    after = shop.look(name)
    assert after.served is not None
    assert after.served == before.served
    failure = after.report["failed_repeat"]
    assert failure["code"].startswith("runner_")
    assert failure["steps"]
    assert {**after.report, "failed_repeat": None} == before.report
    # and one that succeeds takes that back
    again(shop, name, VariantPolicy())
    go_on(shop, name)
    assert shop.look(name).report["failed_repeat"] is None


def test_the_policy_of_a_repeat_is_not_the_models(shop: Shop, name: str):
    with transaction(shop.sessions) as session:
        variant_policies.set_policy(session, name, VariantPolicy(("onnx",), relative=0.5))
    again(shop, name, VariantPolicy(("onnx",), relative=0.25))
    go_on(shop, name)
    assert shop.look(name).report["policy"]["relative"] == 0.25
    with transaction(shop.sessions, write=False) as session:
        assert variant_policies.policy_of(session, name).relative == 0.5


def test_a_version_that_was_retired_meanwhile_stays_retired(shop: Shop, tmp_path: Path):
    name = serving(shop, tmp_path / "retired.onnx")
    again(shop, name, HALF)
    with transaction(shop.sessions) as session:
        registry.retire(session, name, 1)
    go_on(shop, name)
    assert shop.look(name).state in {"END", "UNLOADING"}
    assert shop.work(name).done


def test_a_repeat_that_was_killed_goes_on_and_the_version_serves_all_the_time(shop: Shop, name: str):
    before = served(shop, name)
    again(shop, name, HALF)
    broken_off(shop, name, "variants", "self")
    assert shop.work(name).step == "variants"
    assert served(shop, name) == before
    go_on(shop, name)
    assert shop.look(name).report["policy"] == HALF.to_json()


def test_a_repeat_that_was_killed_three_times_is_given_up_and_the_version_serves(shop: Shop, name: str):
    before = served(shop, name)
    again(shop, name, HALF)
    with transaction(shop.sessions) as session:
        session.execute(update(Preparation).where(Preparation.model == name).values(attempt=3))
    go_on(shop, name)
    assert served(shop, name) == before
    assert shop.look(name).report["failed_repeat"]["code"] == "preparation_crashed"


@pytest.mark.parametrize("step", ["variants", pytest.param("measure", marks=pytest.mark.long)])
def test_a_first_preparation_whose_runners_were_killed_ends_in_words(shop: Shop, tmp_path: Path, step: str):
    # given an upload whose runners all die at a step
    name = shop.upload(classifier(tmp_path / f"{step}.onnx", scale=0.5))
    with transaction(shop.sessions) as session:
        variant_policies.set_policy(session, name, VariantPolicy(("onnx", "onnx-int8"), top1_floor=0.9))
    broken_off(shop, name, step, "runners")
    # then it is not stuck: it was refused, with what happened
    with transaction(shop.sessions, write=False) as session:
        version = session.get_one(Version, (name, 1))
        assert (version.state, version.error_code) == ("END", "runner_crashed")
    assert shop.work(name).done


@pytest.mark.long
@pytest.mark.parametrize("whom", ["self", "runners"])
@pytest.mark.parametrize("step", STEPS)
def test_whatever_is_killed_at_whatever_step_the_version_serves(shop: Shop, name: str, step: str, whom: str):
    before = served(shop, name)
    again(shop, name, HALF)
    broken_off(shop, name, step, whom)
    assert served(shop, name).variant in {before.variant, "onnx-fp16"}
    go_on(shop, name)
    assert shop.work(name).done
    assert served(shop, name).variant in {before.variant, "onnx-fp16"}
