"""The last step of a preparation: a version is loaded where its callers will be sent, before anybody is."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from model_store import registry
from model_store.artifacts import Artifacts
from model_store.database import transaction
from model_store.line_up import follow
from model_store.model_settings import ModelSettings, replace_settings
from model_store.tables import Version
from model_store.version_policies import VersionPolicy
from tests.processes import Cluster
from tests.queue_kit import doubling_model
from tests.version_kit import publish, states, worker_settings_of
from workers import redis_link
from workers.lanes import Keys
from workers.preparation import schedule
from workers.preparation.pipeline import prepare
from workers.settings import WorkerSettings
from workers.warm_up import PAUSE_SECONDS, warm_up


@pytest.fixture
def model(serving: Cluster) -> str:
    """One with an AVAILABLE version, which is to leave when the next one serves."""
    name = f"m{secrets.token_hex(6)}"
    publish(serving.sessions, serving.artifacts, serving.folder, name, 2.0)
    with transaction(serving.sessions) as session:
        follow(session, name, VersionPolicy(latest=1))
    return name


def prepare_next(serving: Cluster, model: str, settings: WorkerSettings, factor: float) -> Version:
    """Uploads and prepares version 2, in this process."""
    artifacts = Artifacts.of(settings)
    stored = artifacts.add_file(doubling_model(serving.folder / f"{model}.onnx", factor))
    with transaction(serving.sessions) as session:
        registry.publish(
            session, model, format="onnx", digest=stored.digest, size_bytes=stored.size_bytes, uploaded_by="test"
        )
        schedule.create(session, model, 2)
    prepare(serving.sessions, artifacts, settings, model, 2)
    with transaction(serving.sessions) as session:
        return session.get_one(Version, (model, 2))


def scratch(settings: WorkerSettings) -> WorkerSettings:
    settings.scratch_dir.mkdir(exist_ok=True)
    return settings


def test_a_prepared_version_is_warm_before_it_takes_the_place_of_the_old_one(serving: Cluster, model: str):
    with transaction(serving.sessions) as session:
        requests = (json.dumps({"instances": [[1, 2]]}), json.dumps({"instances": [["no number", 2]]}))
        replace_settings(session, model, ModelSettings(warm_up=requests))
    made = prepare_next(serving, model, scratch(worker_settings_of(serving)), 3.0)
    assert (made.state, made.error_message) == ("AVAILABLE", None)
    step = json.loads(made.report or "")["steps"][-1]
    assert (step["name"], step["outcome"]) == ("warm", "ok")
    assert "loaded it and answered 3 requests" in step["detail"]
    assert "1 of the model's warm-up requests failed, the first with 400" in step["detail"]
    assert states(serving.sessions, model)[1] in {"UNLOADING", "END"}


def test_a_version_that_the_serving_worker_cannot_load_never_takes_the_place_of_the_old_one(
    serving: Cluster, model: str, tmp_path: Path
):
    # Its bytes are in a store that the serving worker does not share.
    elsewhere = worker_settings_of(serving).model_copy(update={"store_dir": tmp_path / "store"})
    made = prepare_next(serving, model, scratch(elsewhere), 3.125)
    assert (made.state, made.error_code) == ("END", "warm_up_failed")
    assert "golden samples are answered 500" in (made.error_message or "")
    assert states(serving.sessions, model) == {1: "AVAILABLE", 2: "END"}


def test_what_fails_for_the_moment_is_asked_again_before_it_is_given_up(serving: Cluster, model: str):
    settings = worker_settings_of(serving)
    number = publish(serving.sessions, serving.artifacts, serving.folder, model, 3.0, warming=True)
    with redis_link.connect(settings) as client:
        client.set(Keys(settings.key_prefix).quarantine(model, number), "1", px=3000)
    warmed = warm_up(serving.sessions, serving.artifacts, settings, model, number)
    assert warmed.slot is not None
    # Refused at first, while the version was in quarantine.
    assert warmed.seconds > PAUSE_SECONDS
