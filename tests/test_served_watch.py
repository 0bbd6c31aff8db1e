"""What a process has loaded follows what is served: changed variants, settings, retired versions, other pools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event, update

from model_store import registry
from model_store.database import transaction
from model_store.generation import bump_generation
from model_store.line_up import restore
from model_store.model_settings import Metadata, ModelSettings, Serving, replace_metadata, replace_settings
from model_store.tables import Variant
from tests.conftest import RedisServer
from tests.queue_kit import (
    Caller,
    Queue,
    doubling_model,
    make_queue,
    running_slot,
    serve_model,
    wait_until,
    worker_settings,
)
from workers.child import Child
from workers.lookout import Lookout


@pytest.fixture
def queue(redis_server: RedisServer, database_url: str, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, database_url, tmp_path), tmp_path)
    yield made
    made.close()


@pytest.fixture
def child(queue: Queue) -> Child:
    """With the model `double` loaded."""
    child = queue.child()
    child.cache.get("double", queue.version)
    child.watch.look()
    return child


def set_for_double(queue: Queue, serving: Serving, names: tuple[str, ...] | None = None) -> None:
    with transaction(queue.sessions) as session:
        replace_settings(session, "double", ModelSettings(serving, Metadata(class_names=names)))


def choose_another_variant(queue: Queue, path: Path, digest: str | None = None) -> None:
    """As a preparation that was run again does: other bytes serve the same version."""
    stored = digest or queue.artifacts.add_file(doubling_model(path, 3.0)).digest
    with transaction(queue.sessions) as session:
        session.execute(update(Variant).where(Variant.model == "double").values(digest=stored))
        bump_generation(session)


def test_another_variant_is_loaded_in_place_of_the_one_that_served(queue: Queue, tmp_path: Path):
    lane, caller = queue.lane(), Caller(queue)
    with running_slot(queue) as slot:
        first = caller.ask(lane, (1.0, 1.0))
        slot.ring(lane)
        caller.collect(first)
        loads = slot.child.cache.figures().loads

        choose_another_variant(queue, tmp_path / "triple.onnx")

        def answer() -> bytes:
            numbers = caller.ask(lane, (1.0, 1.0))
            return caller.collect(numbers)[numbers[0]].body

        wait_until(lambda: answer() == b'{"predictions":[[3.0,3.0]]}')
        # It was loaded beside the old one: no request waited for it.
        assert slot.child.cache.figures().loads == loads + 1
        assert slot.child.cache.figures().misses == 1


def test_what_is_loaded_follows_also_while_redis_is_too_full_for_figures(queue: Queue, child: Child, tmp_path: Path):
    before = child.cache.get("double", queue.version)
    child.statistics.tallies.ended(("double", queue.version), succeeded=True, nanoseconds=1)
    choose_another_variant(queue, tmp_path / "triple.onnx")
    slot = (queue.settings.pool, "slot")
    lookout = Lookout(queue.client, queue.keys, slot, child.watch, child.uses, child.statistics)
    queue.client.config_set("maxmemory", 1)
    try:
        lookout.start()
        wait_until(lambda: child.cache.get("double", queue.version) is not before)
    finally:
        queue.client.config_set("maxmemory", 0)
        lookout.close()
    # What Redis would not take, it has once there is room.
    assert queue.client.hget(queue.keys.statistics("double", queue.version), "succeeded") == b"1"


def test_a_variant_that_cannot_be_loaded_leaves_the_old_one_in_service(queue: Queue, child: Child, tmp_path: Path):
    before = child.cache.get("double", queue.version)
    choose_another_variant(queue, tmp_path, digest="0" * 64)
    child.watch.look()
    assert child.cache.get("double", queue.version) is before


def test_a_version_that_changed_while_it_was_loaded_is_found_out_though_nothing_changes_later(
    queue: Queue, child: Child, tmp_path: Path
):
    late = serve_model(queue.sessions, queue.artifacts, doubling_model(tmp_path / "d.onnx", 5.0), "late")
    other = queue.artifacts.add_file(doubling_model(tmp_path / "e.onnx", 6.0)).digest
    child.watch.look()
    child.cache.get("late", late)
    with transaction(queue.sessions) as session:
        # As if the load had read before this change and ended after the look that the change brought about.
        session.execute(update(Variant).where(Variant.model == "late").values(digest=other))
    child.watch.look()
    assert child.cache.get("late", late).origin.artifact == other


def test_settings_take_effect_without_another_load(queue: Queue, child: Child):
    before = child.cache.get("double", queue.version)
    set_for_double(queue, Serving(max_parallelism=1, max_instances=5), names=("a", "b"))

    child.watch.look()

    after = child.cache.get("double", queue.version)
    assert (before.max_parallelism, after.max_parallelism, after.contract.max_instances) == (2, 1, 5)
    assert after.contract.class_names == ("a", "b")
    assert after.predictor is before.predictor
    assert after.turn is before.turn
    assert child.cache.figures().loads == 1


def test_an_input_specification_takes_effect_though_nothing_else_changes(queue: Queue, child: Child):
    def specified() -> str | None:
        child.watch.look()
        return child.cache.get("double", queue.version).contract.input_specification

    of_all, of_one = (json.dumps({"kind": "image", "height": size, "width": 1}) for size in (2, 3))
    with transaction(queue.sessions) as session:
        replace_settings(session, "double", ModelSettings(metadata=Metadata(input_specification=of_all)))
    assert specified() == of_all

    with transaction(queue.sessions) as session:
        replace_metadata(session, "double", queue.version, Metadata(input_specification=of_one))
    assert specified() == of_one


def test_a_retired_version_leaves_memory(queue: Queue, child: Child):
    with transaction(queue.sessions) as session:
        registry.retire(session, "double", queue.version)
        registry.set_state(session, "double", queue.version, registry.State.END)
    child.watch.look()
    assert child.cache.loaded() == []


def test_an_ended_version_that_is_loaded_to_come_back_is_kept_until_it_does(
    queue: Queue, child: Child, monkeypatch: pytest.MonkeyPatch
):
    with transaction(queue.sessions) as session:
        registry.retire(session, "double", queue.version)
    child.watch.look()
    assert child.cache.loaded() == []

    tried = child.cache.get("double", queue.version)
    child.watch.look()
    child.watch.look()
    with transaction(queue.sessions) as session:
        restore(session, "double", [queue.version])
    child.watch.look()

    assert child.cache.get("double", queue.version).predictor is tried.predictor
    assert child.cache.figures().loads == 2
    # Retired again it leaves at once, and what is loaded and does not come back leaves in the end.
    with transaction(queue.sessions) as session:
        registry.retire(session, "double", queue.version)
    child.watch.look()
    assert child.cache.loaded() == []
    monkeypatch.setattr("workers.served_watch.COMING_BACK_SECONDS", 0.0)
    child.cache.get("double", queue.version)
    child.watch.look()
    assert child.cache.loaded() == []


def test_an_unforeseen_failure_of_one_version_leaves_the_others_compared(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    child = queue.child()
    other = serve_model(queue.sessions, queue.artifacts, doubling_model(tmp_path / "d.onnx", 5.0), "other")
    keys = [("double", queue.version), ("other", other)]
    for key in keys:
        child.cache.get(*key)
    child.watch.look()
    tried: list[tuple[str, int]] = []

    def fail(model: str, version: int) -> None:
        tried.append((model, version))
        raise MemoryError

    monkeypatch.setattr(child.cache, "renew", fail)
    with transaction(queue.sessions) as session:
        session.execute(update(Variant).values(digest="0" * 64))
        bump_generation(session)

    child.watch.look()
    child.watch.look()

    assert sorted(tried) == sorted(keys)  # each once: not every second


def test_pins_and_pools_are_learned(queue: Queue, child: Child):
    set_for_double(queue, Serving(pinned=True))
    child.watch.look()
    assert [one.pinned for one in child.cache.loaded()] == [True]
    assert not child.pools.elsewhere("double")

    set_for_double(queue, Serving(pool="gpu"))
    child.watch.look()
    assert child.pools.elsewhere("double")
    assert child.cache.loaded() == []


def test_a_look_at_nothing_new_asks_for_one_number(child: Child):
    asked: list[str] = []

    def note(*arguments: object) -> None:
        asked.append(str(arguments[2]))

    event.listen(child.sessions.kw["bind"], "before_cursor_execute", note)
    child.watch.look()
    assert len([statement for statement in asked if statement.startswith("SELECT")]) == 1
