"""Deleting a model, on both databases: what goes with it, what stays, and what may come in between its steps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Boolean, Float, Integer, MetaData, String, Table, func, insert, select

from model_store import imports, partial_uploads
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.deleted_models import forget, withdraw
from model_store.errors import ModelNotFound, VersionInUse
from model_store.partial_uploads import UploadOvertaken
from model_store.registry import digests_in_use, set_label
from model_store.settings import StoreSettings
from tests.databases import make_tables
from tests.publishing import catalog, prepare, upload

# What is about names or was done with a model stays; of figures, their own sweep takes those that nothing is run for.
LEFT = frozenset({"jobs", "lane_counts", "audit_entries", "grants", "client_limits", "quota_usage", "traffic_figures"})
# The name's numbers, and what the fixture has made.
OWN = frozenset({"versions", "variants"})


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    settings = StoreSettings(database_url=database_url)
    make_tables(settings)
    engine = connect(settings, pool_size=4)
    yield sessions_of(engine)
    engine.dispose()


@pytest.fixture
def tables(sessions: Sessions) -> list[Table]:
    """Every table that says of which model its rows are, as it is in the database."""
    with transaction(sessions) as session:
        found = MetaData()
        found.reflect(session.connection())
    return [table for table in found.sorted_tables if "model" in table.columns and table.name not in LEFT]


def row_of(table: Table) -> dict[str, object]:
    """A row of `mnist`'s first version, with something in every column."""
    values: dict[str, object] = {}
    for column in table.columns:
        kinds = ((Boolean, False), (Integer, 1), (Float, 1.0), (String, "x"))
        values[column.name] = next(value for kind, value in kinds if isinstance(column.type, kind))
    return {**values, "model": "mnist"} | ({"parts": "[]"} if "parts" in values else {})


def counted(sessions: Sessions, tables: list[Table], model: str) -> dict[str, int]:
    with transaction(sessions) as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table).where(table.c.model == model)) or 0
            for table in tables
        }


def delete(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        withdraw(session, "mnist")
    with transaction(sessions) as session:
        forget(session, "mnist")


def test_no_table_keeps_anything_of_a_deleted_model(sessions: Sessions, tables: list[Table]):
    # given two models, of one of which every table that knows of models has a row
    for model in ("mnist", "other"):
        upload(sessions, model)
    prepare(sessions, 1)
    with transaction(sessions) as session:
        for table in tables:
            if table.name not in OWN:
                session.execute(insert(table).values(**row_of(table)))
    assert min(counted(sessions, tables, "mnist").values()) == 1

    # when it is deleted
    delete(sessions)

    # then none has one, and the other model is as it was
    assert set(counted(sessions, tables, "mnist").values()) == {0}
    assert counted(sessions, tables, "other")["versions"] == 1
    assert "mnist" not in catalog(sessions).models
    with transaction(sessions) as session, pytest.raises(ModelNotFound):
        withdraw(session, "mnist")


def test_a_name_that_is_free_again_goes_on_with_the_numbers_each_time(sessions: Sessions):
    assert [upload(sessions, content=content)[0] for content in (1, 2)] == [1, 2]
    delete(sessions)
    assert upload(sessions, content=1) == (3, True)
    delete(sessions)
    assert upload(sessions, content=1) == (4, True)
    assert upload(sessions, "other") == (1, True)


def test_the_bytes_of_a_deleted_model_are_in_nobodys_use(sessions: Sessions):
    upload(sessions)
    prepare(sessions, 1)
    delete(sessions)
    with transaction(sessions) as session:
        assert digests_in_use(session) == frozenset()


def test_after_the_first_step_nothing_serves_and_both_may_be_done_again(sessions: Sessions):
    upload(sessions)
    prepare(sessions, 1)
    with transaction(sessions) as session:
        set_label(session, "mnist", "stable", 1)
    for _ in range(2):
        with transaction(sessions) as session:
            withdraw(session, "mnist")
    seen = catalog(sessions).models["mnist"]
    assert (seen.latest, dict(seen.labels), seen.versions[1].state) == (None, {}, "END")
    delete(sessions)
    assert catalog(sessions).models == {}


def test_a_version_that_comes_in_between_the_steps_keeps_the_model(sessions: Sessions):
    upload(sessions, content=1)
    with transaction(sessions) as session:
        withdraw(session, "mnist")
    upload(sessions, content=2)
    with transaction(sessions) as session, pytest.raises(VersionInUse, match="version 2 came in"):
        forget(session, "mnist")
    assert set(catalog(sessions).models["mnist"].versions) == {1, 2}


def test_an_upload_and_an_import_that_are_on_their_way_bring_nothing_in(sessions: Sessions):
    # given a client that sends a file in pieces, and a worker that fetches for an import
    upload(sessions)
    with transaction(sessions) as session:
        begun = partial_uploads.begin(session, "mnist", "c", 10, asked="{}", signature=None)
        asked = imports.request(session, "mnist", "models:/m/1", "c").id
    with transaction(sessions) as session:
        held = imports.claim(session, asked)
    assert held is not None

    # when the model is withdrawn, its upload is returned for its parts, and neither may go on
    with transaction(sessions) as session:
        assert [upload.id for upload in withdraw(session, "mnist")] == [begun.id]
    with transaction(sessions) as session:
        assert not imports.succeed(session, held, 2, "{}")
        with pytest.raises(UploadOvertaken):
            partial_uploads.count(session, begun, [])
