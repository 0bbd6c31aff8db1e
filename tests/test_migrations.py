"""Migrations: forwards, backwards and forwards again, on both databases, and several runs at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command

import auth.audit_tables
import auth.key_tables
import auth.limit_tables
import auth.people_tables
import auth.tables
import auth.token_tables
import model_store.deleted_models
import model_store.evaluations
import model_store.imports
import model_store.job_policies
import model_store.labels
import model_store.model_settings
import model_store.partial_uploads
import model_store.samples
import model_store.tables
import model_store.traffic_tables
import model_store.upload_signatures
import model_store.variant_policies
import model_store.version_policies
import workers.files.tables
import workers.idempotency
import workers.tables
import workers.webhooks.tables
from model_store import migrations
from model_store.database import Base, connect, sessions_of, transaction
from model_store.generation import bump_generation, read_generation
from model_store.registry import publish
from model_store.settings import StoreSettings

TABLES = (
    model_store.tables,
    model_store.traffic_tables,
    model_store.job_policies,
    model_store.labels,
    model_store.version_policies,
    model_store.model_settings,
    model_store.samples,
    model_store.evaluations,
    model_store.partial_uploads,
    model_store.imports,
    model_store.upload_signatures,
    model_store.deleted_models,
    model_store.variant_policies,
    auth.tables,
    auth.audit_tables,
    auth.key_tables,
    auth.limit_tables,
    auth.token_tables,
    auth.people_tables,
    workers.tables,
    workers.webhooks.tables,
    workers.idempotency,
    workers.files.tables,
)


@pytest.fixture
def settings(database_url: str) -> StoreSettings:
    return StoreSettings(database_url=database_url)


def names_of_tables(settings: StoreSettings) -> set[str]:
    engine = connect(settings)
    names = set(sqlalchemy.inspect(engine).get_table_names())
    engine.dispose()
    return names - {"alembic_version"}


def test_upgrade_downgrade_upgrade_ends_with_the_tables_that_the_code_declares(settings: StoreSettings):
    assert len(TABLES) >= 4
    migrations.migrate(settings)
    assert names_of_tables(settings) == set(Base.metadata.tables)

    command.downgrade(migrations.configuration(settings), "base")
    assert names_of_tables(settings) == set()

    migrations.migrate(settings)
    # Raises where a column, an index or a constraint differs between the migrations and the code.
    command.check(migrations.configuration(settings))
    assert names_of_tables(settings) == set(Base.metadata.tables)


def test_a_database_says_whether_it_needs_migrations(settings: StoreSettings):
    engine = connect(settings)
    assert migrations.pending(engine)
    migrations.migrate(settings)
    assert not migrations.pending(engine)
    engine.dispose()


def test_the_first_migration_begins_the_generation_and_times_are_the_databases_own(settings: StoreSettings):
    migrations.migrate(settings)
    engine = connect(settings)
    with transaction(sessions_of(engine)) as session:
        assert read_generation(session) == 0
        bump_generation(session)
        assert read_generation(session) == 1
        version, _ = publish(session, "mnist", format="keras", digest="0" * 64, size_bytes=1, uploaded_by="admin")
        session.refresh(version)
        # Milliseconds, between 2020 and 2100.
        assert 1_577_000_000_000 < version.created_at < 4_102_000_000_000
    engine.dispose()


def test_jobs_of_the_release_before_keep_their_bodies_forwards_and_backwards(settings: StoreSettings):
    configuration = migrations.configuration(settings)
    command.upgrade(configuration, "0001")
    engine = connect(settings)
    columns = (
        "id, sequence, client_id, model, version, priority, lane, dialect, state, fence, attempt, instances, input, "
        "input_stored, result, result_stored, dispatched_at, not_before"
    )
    values = ", ".join(f":{name}" for name in columns.split(", "))
    row = {
        "client_id": "c", "model": "m", "version": 1, "priority": "bulk", "lane": "m:1:bulk:c", "dialect": "d",
        "fence": 0, "attempt": 0, "instances": 1, "input_stored": False, "result_stored": False, "dispatched_at": 1,
        "not_before": 0,
    }  # fmt: skip
    with engine.begin() as connection:
        insert = sqlalchemy.text(f"INSERT INTO jobs ({columns}) VALUES ({values})")  # noqa: S608 - names from above
        connection.execute(insert, row | {"id": "b", "sequence": 2, "state": "queued", "input": b"in", "result": None})
        connection.execute(
            insert, row | {"id": "a", "sequence": 1, "state": "succeeded", "input": None, "result": b"out"}
        )
        counts = "(lane, client_id, model, version, queued, waiting) VALUES ('m:1:bulk:c', 'c', 'm', 1, 1, 0)"
        connection.execute(sqlalchemy.text(f"INSERT INTO lane_counts {counts}"))

    command.upgrade(configuration, "0002")
    with engine.connect() as connection:
        jobs = connection.execute(sqlalchemy.text("SELECT id, state, dispatched_at FROM jobs ORDER BY number")).all()
        body = connection.execute(sqlalchemy.text("SELECT id, body FROM job_inputs JOIN jobs ON job = number")).all()
        result = connection.execute(sqlalchemy.text("SELECT id, body FROM job_results JOIN jobs ON job = number")).all()
        waiting = connection.execute(sqlalchemy.text("SELECT waiting FROM lane_counts")).scalar_one()
    assert [tuple(job) for job in jobs] == [("a", "succeeded", 1), ("b", "queued", None)]
    assert [(job_id, bytes(held)) for job_id, held in (*body, *result)] == [("b", b"in"), ("a", b"out")]
    assert waiting == 1, "what lay in Redis under its id is laid out again under its number"

    command.downgrade(configuration, "0001")
    with engine.connect() as connection:
        back = connection.execute(sqlalchemy.text("SELECT id, input, result FROM jobs ORDER BY sequence")).all()
    engine.dispose()
    assert [(row.id, row.input and bytes(row.input), row.result and bytes(row.result)) for row in back] == [
        ("a", None, b"out"), ("b", b"in", None),
    ]  # fmt: skip


def test_what_scopes_alone_allowed_becomes_grants_and_back_they_lose_what_was_not_known(settings: StoreSettings):
    configuration = migrations.configuration(settings)
    command.upgrade(configuration, "0004")
    engine = connect(settings)
    scopes = {
        "cli_uploader": "models:read models:write",
        "cli_chief": "models:write clients:admin",
        "cli_scraper": "metrics:read",
        "cli_caller": "predict models:read metrics:read",
    }
    held = sqlalchemy.text("SELECT client_id, model, actions FROM grants ORDER BY id")
    with engine.begin() as connection:
        for client, text in scopes.items():
            connection.execute(
                sqlalchemy.text(
                    "INSERT INTO clients (id, name, secret_hash, scopes, disabled) VALUES (:id, :id, '', :scopes, :no)"
                ),
                {"id": client, "scopes": text, "no": False},
            )
        connection.execute(
            sqlalchemy.text("INSERT INTO grants (client_id, model, actions) VALUES ('cli_caller', 'm', 'predict')")
        )
    command.upgrade(configuration, "0005")
    with engine.begin() as connection:
        assert connection.execute(held).all() == [
            ("cli_caller", "m", "predict"),
            ("cli_uploader", "*", "metadata upload label retire"),
            ("cli_scraper", "*", "metadata"),
        ]
        changed = sqlalchemy.text("UPDATE grants SET model = :model, actions = :actions WHERE client_id = :client")
        row = {"client": "cli_uploader", "model": "m", "actions": "submit metadata upload"}
        connection.execute(changed, row)
        connection.execute(changed, row | {"client": "cli_scraper", "actions": "upload"})
    command.downgrade(configuration, "0004")
    with engine.connect() as connection:
        assert connection.execute(held).all() == [
            ("cli_caller", "m", "predict"), ("cli_uploader", "m", "submit metadata"),
        ]  # fmt: skip
    engine.dispose()


def test_people_of_the_release_before_keep_what_they_had_forwards_and_backwards(settings: StoreSettings):
    configuration = migrations.configuration(settings)
    command.upgrade(configuration, "0006")
    engine = connect(settings)
    with engine.begin() as connection:
        columns = "(name, password_hash, disabled, created_at)"
        for name, disabled in (("ada", False), ("gone", True)):
            insert = f"INSERT INTO people {columns} VALUES (:name, :hash, :disabled, 7)"  # noqa: S608 - names from above
            connection.execute(sqlalchemy.text(insert), {"name": name, "hash": f"of {name}", "disabled": disabled})

    command.upgrade(configuration, "0007")
    with engine.begin() as connection:
        wanted = "SELECT id, name, role, password_hash, disabled, second_factor, last_step FROM people ORDER BY name"
        rows = connection.execute(sqlalchemy.text(wanted)).all()
        insert = "INSERT INTO people (id, name, role, password_hash, disabled, last_step) VALUES "
        insert += "('usr_x', 'invited', 'admin', '', :disabled, 0)"
        connection.execute(sqlalchemy.text(insert), {"disabled": False})
    assert [(row.name, row.role, row.password_hash, bool(row.disabled)) for row in rows] == [
        ("ada", "reader", "of ada", False),
        ("gone", "reader", "of gone", True),
    ]
    assert all(re.fullmatch("usr_[0-9a-f]{32}", row.id) for row in rows)
    assert len({row.id for row in rows}) == 2

    command.downgrade(configuration, "0006")
    with engine.connect() as connection:
        wanted = "SELECT name, password_hash, created_at FROM people ORDER BY name"
        back = [tuple(row) for row in connection.execute(sqlalchemy.text(wanted))]
    engine.dispose()
    assert back == [("ada", "of ada", 7), ("gone", "of gone", 7)], "nobody is left without a password"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_migration_waits_for_a_gateway_that_is_accepting_jobs(settings: StoreSettings):
    configuration = migrations.configuration(settings)
    command.upgrade(configuration, "0001")
    engine = connect(settings)
    with engine.begin() as connection:
        counts = "(lane, client_id, model, version, queued, waiting) VALUES ('m:1:bulk:c', 'c', 'm', 1, 0, 0)"
        connection.execute(sqlalchemy.text(f"INSERT INTO lane_counts {counts}"))
    with ThreadPoolExecutor(1) as thread, engine.connect() as gateway:
        # As a gateway of the release before: the lane is counted first, the job is written last.
        counted = gateway.execute(sqlalchemy.text("UPDATE lane_counts SET queued = queued + 1"))
        assert counted.rowcount == 1
        migrated = thread.submit(command.upgrade, configuration, "0002")
        time.sleep(0.5)
        gateway.execute(sqlalchemy.text("SELECT count(*) FROM jobs"))
        gateway.commit()
        migrated.result(timeout=30)
    assert "job_inputs" in sqlalchemy.inspect(engine).get_table_names()
    engine.dispose()


def test_migrations_that_run_at_the_same_time_wait_for_each_other(settings: StoreSettings):
    program = "from model_store.migrations import migrate\nfrom model_store.settings import StoreSettings\n"
    program += "migrate(StoreSettings())"
    environment = {**os.environ, "SLUICE_DATABASE_URL": settings.database_url.get_secret_value()}
    runs = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(3)]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert "versions" in names_of_tables(settings)


def test_running_again_changes_nothing_and_keeps_what_is_there(settings: StoreSettings):
    migrations.migrate(settings)
    engine = connect(settings)
    with transaction(sessions_of(engine)) as session:
        bump_generation(session)
    migrations.migrate(settings)
    with transaction(sessions_of(engine)) as session:
        assert read_generation(session) == 1
    engine.dispose()


def test_the_statements_can_be_printed_for_an_administrator_of_the_database(
    settings: StoreSettings, capsys: pytest.CaptureFixture[str]
):
    command.upgrade(migrations.configuration(settings), "head", sql=True)
    printed = capsys.readouterr().out
    assert "CREATE TABLE versions" in printed
    assert "INSERT INTO generation" in printed
    assert names_of_tables(settings) == set()


def test_the_folder_of_a_sqlite_file_is_made_for_its_owner_alone(tmp_path: Path):
    folder = tmp_path / "data"
    migrations.migrate(StoreSettings(database_url=f"sqlite:///{folder / 'sluice.db'}"))
    assert (folder / "sluice.db").is_file()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_an_installation_without_migrations_says_where_it_looked(tmp_path: Path):
    installed = tmp_path / "installed"
    shutil.copytree(Path(migrations.__file__).parent, installed / "model_store")
    shutil.copytree(Path(migrations.__file__).parent.parent / "monitoring", installed / "monitoring")
    program = "from model_store.migrations import migrate\nfrom model_store.settings import StoreSettings\n"
    program += "migrate(StoreSettings())"
    run = subprocess.run([sys.executable, "-c", program], cwd=installed, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert f"MigrationsMissing: no migrations beside the package, {installed / 'alembic.ini'} is missing" in run.stderr


def test_the_folder_of_migrations_is_not_a_package_that_hides_alembic():
    import alembic

    assert not (migrations.SOURCE_TREE / "alembic" / "__init__.py").exists()
    assert "site-packages" in (alembic.__file__ or "")
