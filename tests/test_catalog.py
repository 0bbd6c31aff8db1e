"""The catalog in memory: what names, versions and labels mean, and why something cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from model_store.catalog import Catalog
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.errors import LabelNotFound, ModelNotFound, SluiceError, VersionNotReady
from model_store.registry import refuse, retire, set_label, set_state
from model_store.settings import StoreSettings
from model_store.tables import State
from tests.databases import make_tables
from tests.publishing import DIGITS, catalog, prepare, upload


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    settings = StoreSettings(database_url=database_url)
    make_tables(settings)
    engine = connect(settings, pool_size=8)
    yield sessions_of(engine)
    engine.dispose()


def state_of(sessions: Sessions) -> Catalog:
    """Model `mnist`: 1 and 2 AVAILABLE (`stable` is 1), 3 refused, 4 being prepared; `new` has only 1, in START."""
    for content in range(1, 5):
        upload(sessions, content=content)
    upload(sessions, "new")
    for number in (1, 2):
        prepare(sessions, number)
    with transaction(sessions) as session:
        set_label(session, "mnist", "stable", 1)
        refuse(session, "mnist", 3, code="not_a_model", message="no", report={})
        set_state(session, "mnist", 4, State.LOADING)
    return catalog(sessions)


def test_the_catalog_resolves_names_versions_and_labels(sessions: Sessions):
    found = state_of(sessions)
    assert found.resolve("mnist").number == found.models["mnist"].latest == 2
    assert found.resolve("mnist", 1).number == 1
    assert found.resolve("mnist", label="stable").number == 1
    assert found.models["mnist"].labels_of(1) == ("stable",)
    assert found.models["mnist"].labels_of(2) == ()
    available = found.resolve("mnist", 2)
    assert (available.signature, available.max_batch, available.max_parallelism) == (DIGITS, 32, 3)
    assert available.available_at is not None


UNUSABLE: list[tuple[tuple[str, int | None, str | None], type[SluiceError], str]] = [
    (("foo", None, None), ModelNotFound, "Servable not found for request: Latest(foo)"),
    (("foo", 50, None), ModelNotFound, "Servable not found for request: Specific(foo, 50)"),
    (("foo", None, "stable"), ModelNotFound, "Servable not found for request: Latest(foo)"),
    (("mnist", 50, None), ModelNotFound, "Servable not found for request: Specific(mnist, 50)"),
    (("mnist", 3, None), ModelNotFound, "Servable not found for request: Specific(mnist, 3)"),
    (("mnist", None, "canary"), LabelNotFound, "Unrecognized servable version label: canary"),
    (("mnist", 4, None), VersionNotReady, "version 4 of model mnist is being prepared; try again shortly"),
    (("new", None, None), VersionNotReady, "version 1 of model new is being prepared; try again shortly"),
]


def test_the_catalog_says_why_something_cannot_be_used(sessions: Sessions):
    found = state_of(sessions)
    for target, error, text in UNUSABLE:
        with pytest.raises(error) as caught:
            found.resolve(*target)
        assert caught.value.message == text
        assert caught.value.retry_after_seconds == (1 if error is VersionNotReady else None)


def test_a_model_whose_every_version_has_ended_is_not_found_by_its_bare_name(sessions: Sessions):
    upload(sessions)
    with transaction(sessions) as session:
        retire(session, "mnist", 1)
    with pytest.raises(ModelNotFound, match=r"Latest\(mnist\)"):
        catalog(sessions).resolve("mnist")


def test_the_catalog_cannot_be_changed(sessions: Sessions):
    upload(sessions)
    version = catalog(sessions).find("mnist", 1)
    with pytest.raises(AttributeError):
        version.state = State.AVAILABLE
    assert replace(version, state=State.LOADING).state is State.LOADING
