"""Models, versions and labels, on both databases: numbers, states, labels, what is served, and the generation."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy.exc import IntegrityError

from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.errors import (
    DatabaseNotMigrated,
    LabelNotFound,
    ModelNotFound,
    NameInvalid,
    VersionInUse,
    VersionNotAvailable,
    VersionNotReady,
)
from model_store.registry import (
    Served,
    bump_generation,
    check_name,
    delete_label,
    delete_version,
    digests_in_use,
    make_available,
    read_generation,
    refuse,
    retire,
    served,
    set_label,
    set_state,
)
from model_store.settings import StoreSettings
from model_store.tables import Generation, State, Version
from tests.databases import make_tables
from tests.publishing import DIGITS, catalog, prepare, upload


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    settings = StoreSettings(database_url=database_url)
    make_tables(settings)
    engine = connect(settings, pool_size=8)
    yield sessions_of(engine)
    engine.dispose()


def generation(sessions: Sessions) -> int:
    with transaction(sessions, write=False) as session:
        return read_generation(session)


def test_versions_are_numbered_by_the_store_and_a_number_is_never_used_twice(sessions: Sessions):
    assert [upload(sessions, content=content) for content in (1, 2)] == [(1, True), (2, True)]
    with transaction(sessions) as session:
        retire(session, "mnist", 2)
        delete_version(session, "mnist", 2)
    assert upload(sessions, content=3) == (3, True)
    assert upload(sessions, "other", content=3) == (1, True)


def test_the_same_bytes_again_are_the_same_version_until_it_has_ended(sessions: Sessions):
    assert upload(sessions) == (1, True)
    assert upload(sessions) == (1, False)
    prepare(sessions, 1)
    assert upload(sessions) == (1, False)
    with transaction(sessions) as session:
        retire(session, "mnist", 1)
    assert upload(sessions) == (2, True)


def test_two_uploads_at_once_get_different_numbers(sessions: Sessions):
    found: list[tuple[int, bool]] = []
    together = threading.Barrier(6)

    def one(content: int) -> None:
        together.wait()
        found.append(upload(sessions, content=content))

    # Also the first of a model: all six find that it does not exist yet.
    threads = [threading.Thread(target=one, args=(content,)) for content in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(number, True) for number in range(1, 7)]


def test_two_uploads_of_the_same_bytes_at_once_make_one_version(sessions: Sessions):
    found: list[tuple[int, bool]] = []
    together = threading.Barrier(4)

    def one() -> None:
        together.wait()
        found.append(upload(sessions))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(1, False), (1, False), (1, False), (1, True)]


def test_a_new_label_that_two_administrators_make_at_once_is_made_once(sessions: Sessions):
    for content in (1, 2):
        upload(sessions, content=content)
        prepare(sessions, content)
    failed: list[IntegrityError] = []
    together = threading.Barrier(2)

    def point(label: str, number: int) -> None:
        try:
            with transaction(sessions) as session:
                session.connection()
                if session.get_bind().dialect.name == "postgresql":  # SQLite lets one writer in at a time anyway
                    together.wait()
                set_label(session, "mnist", label, number)
        except IntegrityError as error:
            failed.append(error)

    for round in range(10):
        threads = [threading.Thread(target=point, args=(f"label-{round}", number)) for number in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
    assert len(catalog(sessions).models["mnist"].labels) == 10


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "a b", "a:b", "ä", "a" * 129, "a\n", "a\0"])
def test_a_name_outside_the_rule_is_refused(name: str):
    with pytest.raises(NameInvalid):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "0", "mnist", "A.b-c_9", "a" * 128])
def test_a_name_within_the_rule_is_taken_as_it_is(name: str):
    assert check_name(name) == name


def test_models_and_labels_have_such_names(sessions: Sessions):
    with pytest.raises(NameInvalid, match="model's"):
        upload(sessions, "a b")
    upload(sessions)
    prepare(sessions, 1)
    with transaction(sessions) as session, pytest.raises(NameInvalid, match="label's"):
        set_label(session, "mnist", "a b", 1)


def test_an_available_version_is_served_by_its_chosen_variant(sessions: Sessions):
    upload(sessions)
    assert prepare(sessions, 1)
    with transaction(sessions) as session:
        assert served(session, "mnist", 1) == Served(
            model="mnist",
            number=1,
            signature=DIGITS,
            runtime="onnx",
            variant="onnx",
            digest=f"{1:e>64}",
            memory_bytes=5_000_000,
            max_batch=32,
            max_parallelism=3,
            batch_seconds=0.001,
            upload_digest=f"{1:0>64}",
        )


def test_the_chosen_variant_must_be_there(sessions: Sessions):
    upload(sessions)
    with transaction(sessions) as session, pytest.raises(ValueError, match="litert"):
        make_available(
            session,
            "mnist",
            1,
            signature=DIGITS,
            variant="litert",
            variants=[],
            max_batch=1,
            max_parallelism=1,
            batch_seconds=None,
            report={},
        )


def test_what_is_not_available_is_not_served(sessions: Sessions):
    upload(sessions)
    with transaction(sessions) as session:
        with pytest.raises(VersionNotReady):
            served(session, "mnist", 1)
        with pytest.raises(ModelNotFound, match=r"Specific\(mnist, 2\)"):
            served(session, "mnist", 2)


def test_a_version_that_was_retired_while_it_was_prepared_stays_retired(sessions: Sessions):
    upload(sessions)
    with transaction(sessions) as session:
        assert set_state(session, "mnist", 1, State.LOADING)
        assert retire(session, "mnist", 1)
        assert not set_state(session, "mnist", 1, State.LOADING)
        assert not refuse(session, "mnist", 1, code="not_a_model", message="no", report={})
    assert not prepare(sessions, 1)
    found = catalog(sessions).models["mnist"].versions[1]
    assert (found.state, found.error_code, found.signature) == (State.END, None, None)


def test_preparing_again_after_a_crash_changes_nothing_more(sessions: Sessions):
    upload(sessions)
    assert prepare(sessions, 1)
    before = catalog(sessions)
    assert not prepare(sessions, 1)
    assert catalog(sessions) == before


def test_a_refused_version_says_why(sessions: Sessions):
    upload(sessions)
    with transaction(sessions) as session:
        assert refuse(session, "mnist", 1, code="class_not_allowed", message="layer Lambda", report={"step": "inspect"})
    found = catalog(sessions).models["mnist"].versions[1]
    assert (found.state, found.error_code, found.error_message) == (State.END, "class_not_allowed", "layer Lambda")
    with transaction(sessions) as session:
        assert session.get_one(Version, ("mnist", 1)).report == '{"step": "inspect"}'


def test_a_label_points_only_to_an_available_version(sessions: Sessions):
    upload(sessions)
    with transaction(sessions) as session, pytest.raises(VersionNotAvailable, match="START"):
        set_label(session, "mnist", "stable", 1)
    with transaction(sessions) as session, pytest.raises(ModelNotFound):
        set_label(session, "mnist", "stable", 7)


def test_a_label_moves_and_keeps_what_it_points_to_in_service(sessions: Sessions):
    for content in (1, 2):
        upload(sessions, content=content)
        prepare(sessions, content)
    for number in (1, 2):
        with transaction(sessions) as session:
            set_label(session, "mnist", "stable", number)
        assert catalog(sessions).resolve("mnist", label="stable").number == number
    with transaction(sessions) as session:
        with pytest.raises(VersionInUse, match="stable"):
            retire(session, "mnist", 2)
        delete_label(session, "mnist", "stable")
        assert retire(session, "mnist", 2)
        with pytest.raises(LabelNotFound):
            delete_label(session, "mnist", "stable")


def test_only_an_ended_version_is_deleted_and_its_variants_with_it(sessions: Sessions):
    upload(sessions)
    prepare(sessions, 1)
    with transaction(sessions) as session, pytest.raises(VersionInUse, match="AVAILABLE"):
        delete_version(session, "mnist", 1)
    with transaction(sessions) as session:
        assert digests_in_use(session) == {f"{1:064x}", f"{1:e>64}", "f" * 64}
        retire(session, "mnist", 1)
        delete_version(session, "mnist", 1)
        assert digests_in_use(session) == frozenset()
        with pytest.raises(ModelNotFound):
            delete_version(session, "mnist", 1)


def test_every_change_of_what_is_served_is_counted_and_nothing_else_is(sessions: Sessions):
    counts = [generation(sessions)]

    def counted() -> bool:
        counts.append(generation(sessions))
        return counts[-1] > counts[-2]

    upload(sessions)
    assert counted()
    upload(sessions)
    assert not counted()
    with transaction(sessions) as session:
        set_state(session, "mnist", 1, State.LOADING)
    assert counted()
    prepare(sessions, 1)
    assert counted()
    for change in (
        lambda session: set_label(session, "mnist", "stable", 1),
        lambda session: delete_label(session, "mnist", "stable"),
        lambda session: retire(session, "mnist", 1),
        lambda session: delete_version(session, "mnist", 1),
    ):
        with transaction(sessions) as session:
            change(session)
        assert counted()
    catalog(sessions)
    assert not counted()


def test_a_change_that_is_rolled_back_is_not_counted(sessions: Sessions):
    before = generation(sessions)
    with sessions() as session:
        bump_generation(session)
        assert read_generation(session) == before + 1
        session.rollback()
    assert generation(sessions) == before


def test_without_its_row_the_generation_is_an_error_not_a_silence(sessions: Sessions):
    with transaction(sessions) as session:
        session.delete(session.get_one(Generation, 1))
        session.flush()
        for use in (bump_generation, read_generation):
            with pytest.raises(DatabaseNotMigrated, match="sluice migrate"):
                use(session)
