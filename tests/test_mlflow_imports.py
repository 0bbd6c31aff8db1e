"""Imports as rows and over HTTP: what is refused, what is never asked for, and what happens where the server fails."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy.orm import Session

from auth import clients, revocations
from auth.grants import ADMINISTRATION, Action, GrantSpec, set_grants
from auth.scopes import Scope
from auth.tables import Client
from auth.upload_authority import UploadAuthority, require_still
from model_store import imports
from model_store.database import transaction
from model_store.imports import ModelImport
from model_store.settings import StoreSettings
from model_store.tables import Version
from sluice.listening_ports import free_port
from tests.conftest import RedisServer
from tests.databases import make_tables
from tests.live_gateway import EVERY_MODEL, live_gateway, refused
from tests.mlflow_kit import FILES, PLACE, RUN, Mlflow, Office, serving
from workers.mlflow import server as mlflow_server
from workers.mlflow import uris
from workers.mlflow.importing import ImportTookTooLong
from workers.mlflow.sources import RemoteFile, Source


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    make_tables(StoreSettings(database_url=f"sqlite:///{tmp_path / 'sluice.db'}"))
    made = Office(tmp_path)
    yield made
    made.engine.dispose()


def test_what_an_import_fetched_is_a_version_that_knows_where_it_came_from(office: Office):
    with serving(Mlflow()) as mlflow:
        ended = office.run(office.ask(), mlflow.url)
        again = office.run(office.ask("models:/digits/3"), mlflow.url)

    assert (ended.state, ended.version, ended.error_code) == ("succeeded", 1, None)
    assert (again.state, again.version, office.versions()) == ("succeeded", 1, 1)
    assert ended.fetched_bytes == ended.total_bytes == sum(map(len, FILES.values()))
    with transaction(office.sessions) as session:
        version = session.get_one(Version, ("digits", 1))
        assert (version.format, version.uploaded_by) == ("mlflow", office.client)
        source = json.loads(version.source or "{}")
    assert (source["uri"], source["run_id"]) == ("models:/digits@champion", RUN)
    with office.artifacts.opened(version.digest) as path:
        assert path.read_bytes().startswith(b"PK")


@pytest.mark.parametrize(
    ("token", "sent"), [("", None), ("a-token", "Bearer a-token"), ("me:secret", "Basic bWU6c2VjcmV0")]
)
def test_the_server_is_told_who_asks(office: Office, token: str, sent: str | None):
    with serving(Mlflow()) as mlflow:
        office.run(office.ask(), mlflow.url, mlflow_token=SecretStr(token) if token else None)
    assert set(mlflow.credentials) == {sent}


@pytest.mark.parametrize(
    "place",
    [
        "s3://bucket/models/m-1",
        "file:///etc",
        "http://169.254.169.254/latest/meta-data",
        "mlflow-artifacts://elsewhere.example/0/models/m-1",
        "mlflow-artifacts:/../../etc",
        "mlflow-artifacts:/",
        "",
    ],
)
def test_files_that_lie_elsewhere_than_at_the_server_are_never_asked_for(office: Office, place: str):
    with serving(Mlflow(place)) as mlflow:
        ended = office.run(office.ask(), mlflow.url)

    assert (ended.state, ended.error_code, office.versions()) == ("failed", "source_refused", 0)
    assert not [target for target in mlflow.asked if "mlflow-artifacts" in target]


def test_a_redirect_is_not_followed(office: Office):
    with serving(Mlflow()) as elsewhere, serving(Mlflow()) as mlflow:
        mlflow.instead = lambda target: (302, {"location": elsewhere.url + target}, b"")
        ended = office.run(office.ask(), mlflow.url)

    assert elsewhere.asked == []
    assert (ended.state, ended.error_code) == ("waiting", None)  # it is tried again


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("large", "artifact_too_large"),
        ("larger than said", "artifact_too_large"),
        ("many", "source_refused"),
        ("names", "source_refused"),
        ("a long name", "source_refused"),
        ("nothing", "source_not_found"),
        ("forbidden", "source_refused"),
    ],
)
def test_what_cannot_be_taken_fails_with_its_reason_and_leaves_nothing(office: Office, fault: str, code: str):
    files = {
        "large": {"MLmodel": b"x" * 200_000},
        "larger than said": {"MLmodel": b"x" * 200_000},
        "many": {f"{number}": b"" for number in range(mlflow_server.MOST_FILES + 1)},
        "names": {"MLmodel": b"x", "..": b"y"},
        "a long name": {"MLmodel": b"x", "y" * 70_000: b"y"},
        "nothing": {},
    }.get(fault, FILES)
    with serving(Mlflow(files=files)) as mlflow:
        if fault == "larger than said":
            mlflow.sizes = {"MLmodel": 10}
        if fault == "forbidden":
            mlflow.instead = lambda _: (403, {}, b"{}")
        ended = office.run(office.ask(), mlflow.url)

    assert (ended.state, ended.error_code, office.versions()) == ("failed", code, 0)
    assert not [path for path in office.artifacts.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("fault", ["away", "no JSON", "error"])
def test_a_server_that_fails_is_tried_again_a_few_times(office: Office, fault: str):
    import_id = office.ask()
    with serving(Mlflow()) as mlflow:
        mlflow.instead = lambda _: (500, {}, b"") if fault == "error" else (200, {}, b"<html>")
        url = f"http://127.0.0.1:{free_port()}" if fault == "away" else mlflow.url
        states = []
        for _ in range(imports.ATTEMPTS):
            states.append(office.run(import_id, url).state)
            with transaction(office.sessions) as session:
                session.get_one(ModelImport, import_id).due_at = 0

    assert states == ["waiting", "waiting", "failed"]
    assert office.look(import_id).error_code == "registry_unavailable"


@pytest.mark.parametrize(
    ("place", "listed"),
    [
        pytest.param("mlflow-artifacts://[x/0/models", {}, id="a place that is no URI"),
        pytest.param(PLACE, {"file_size": "many"}, id="a size that is no number"),
        pytest.param(PLACE, {"file_size": -(10**6)}, id="a size below nothing"),
        pytest.param(PLACE, {"file_size": {}}, id="a size that is a table"),
        pytest.param(f"mlflow-artifacts:/{'x' * 70_000}", {}, id="a place that no URL takes"),
    ],
)
def test_an_answer_that_no_mlflow_gives_is_one_of_a_server_that_fails(
    office: Office, place: str, listed: dict[str, object]
):
    import_id = office.ask()
    with serving(Mlflow(place)) as mlflow:
        if listed:
            answer = json.dumps({"files": [{"path": "MLmodel"} | listed]}).encode()
            mlflow.instead = lambda target: (200, {}, answer) if "artifacts?path=" in target else None
        ended = office.run(import_id, mlflow.url)

    assert (ended.state, office.versions()) == ("waiting", 0)


def test_an_answer_that_is_nested_without_end_is_one_of_a_server_that_fails(office: Office):
    with serving(Mlflow()) as mlflow:
        mlflow.instead = lambda _: (200, {}, b"[" * 100_000)
        assert office.run(office.ask(), mlflow.url).state == "waiting"


def test_an_import_that_kills_whoever_fetches_for_it_ends(office: Office):
    import_id = office.ask()
    for _ in range(imports.ATTEMPTS):
        with transaction(office.sessions) as session:
            assert imports.claim(session, import_id)
            session.get_one(ModelImport, import_id).due_at = 0

    with serving(Mlflow()) as mlflow:
        ended = office.run(import_id, mlflow.url)

    assert (ended.state, ended.error_code, mlflow.asked) == ("failed", "import_broken_off", [])


def test_an_import_that_another_worker_has_taken_over_publishes_nothing(office: Office):
    import_id = office.ask()

    def taken_over(target: str) -> None:
        if target.endswith("model.keras"):
            with transaction(office.sessions) as session:
                session.get_one(ModelImport, import_id).fence += 1

    with serving(Mlflow()) as mlflow:
        mlflow.instead = taken_over
        ended = office.run(import_id, mlflow.url)

    assert (ended.state, office.versions()) == ("fetching", 0)
    assert not [path for path in office.artifacts.root.rglob("*") if path.is_file()]


def withdraw_grant(session: Session, client: str) -> None:
    set_grants(session, client, [GrantSpec("digits", actions=frozenset({Action.METADATA, Action.LABEL}))])


def end_grant(session: Session, client: str) -> None:
    set_grants(session, client, [GrantSpec("digits", actions=ADMINISTRATION, expires_at=1)])


def take_scope(session: Session, client: str) -> None:
    session.get_one(Client, client).scopes = str(Scope.MODELS_READ)


WITHDRAWN: dict[str, Callable[[Session, str], object]] = {
    "the grant": withdraw_grant,
    "the grant's time": end_grant,
    "the scope": take_scope,
    "the client": lambda session, client: clients.set_disabled(session, client, True),
    "all of its tokens": clients.revoke_tokens,
    "its token": lambda session, client: revocations.revoke(session, "jti", client, 2**33),
}


@pytest.mark.parametrize("taken", WITHDRAWN.values(), ids=WITHDRAWN.keys())
def test_who_lost_the_right_while_it_was_fetched_publishes_nothing(
    office: Office, taken: Callable[[Session, str], object]
):
    import_id = office.ask()

    def withdraw(target: str) -> None:
        if target.endswith("model.keras"):
            with transaction(office.sessions) as session:
                taken(session, office.client)

    with serving(Mlflow()) as mlflow:
        mlflow.instead = withdraw
        ended = office.run(import_id, mlflow.url)

    assert (ended.state, ended.error_code, office.versions()) == ("failed", "upload_withdrawn", 0)


def test_what_was_asked_for_before_rights_were_noted_is_asked_for_again(office: Office):
    import_id = office.ask()
    with transaction(office.sessions) as session:
        session.get_one(ModelImport, import_id).authority = None
    with serving(Mlflow()) as mlflow:
        ended = office.run(import_id, mlflow.url)

    assert (ended.state, ended.error_code, office.versions()) == ("failed", "upload_withdrawn", 0)


def test_an_import_ends_after_as_long_as_it_may_take_in_all(office: Office):
    import_id, pieces = office.ask(), []

    def slow(target: str) -> None:
        pieces.append(target)
        # By the clock that counts: as if the attempts before had taken all of the time but a moment.
        time.sleep(0.3)

    with serving(Mlflow()) as mlflow:
        mlflow.instead = slow
        ended = office.run(import_id, mlflow.url, mlflow_import_seconds=0.2)
        assert (ended.state, ended.error_code, office.versions()) == ("failed", "import_took_too_long", 0)
        asked_once, again = len(pieces), office.ask()
        with transaction(office.sessions) as session:
            session.get_one(ModelImport, again).begun_at = 1
        ended = office.run(again, mlflow.url)

    assert (ended.state, ended.error_code) == ("failed", "import_took_too_long")
    assert len(pieces) == asked_once, "what began so long ago asks for nothing any more"


def test_a_file_that_never_ends_is_given_up_in_the_middle_of_it(office: Office):
    left = [True]

    def require_time() -> None:
        if not left[0]:
            raise ImportTookTooLong("no time is left")

    large = RemoteFile("large", 4 * 1024**2)
    with serving(Mlflow(files={"large": bytes(large.size_bytes)})) as mlflow:
        settings = office.settings.model_copy(update={"mlflow_url": mlflow.url})
        with mlflow_server.MlflowServer(settings, require_time) as server:
            pieces = server.read(Source("models:/digits/3", PLACE.removeprefix("mlflow-artifacts:/")), large)
            assert len(next(pieces)) < large.size_bytes
            left[0] = False
            with pytest.raises(ImportTookTooLong):
                next(pieces)


@pytest.mark.parametrize(
    "uri",
    [
        "", "models:/", "models:/a", "models:/a/0", "models:/a/latest", "models:/a/1/2", "models:/a@b@c", "runs:/x/y",
        f"runs:/{RUN}/../x", f"runs:/{RUN}/", "http://127.0.0.1/x", "file:///etc/passwd", "s3://b/m", "models:/a/1\n",
        "models:/" + "a" * 600 + "/1", "models://host/a/1",
    ],
)  # fmt: skip
def test_a_uri_is_a_name_in_the_registry_and_nothing_else(uri: str):
    with pytest.raises(uris.ImportUriInvalid):
        uris.parse(uri)


def test_imports_are_asked_for_over_http_and_followed(redis_server: RedisServer, tmp_path: Path):
    settings = {"redis_url": redis_server.url, "key_prefix": "imports"}
    with (
        live_gateway(tmp_path, **settings, mlflow_url="http://127.0.0.1:1") as gateway,
        gateway.client([Scope.MODELS_WRITE, Scope.MODELS_READ], [EVERY_MODEL]) as admin,
    ):
        asked = admin.post("/admin/models/digits/imports", json={"uri": "models:/digits@champion"})
        assert asked.status_code == 202, asked.text
        with transaction(gateway.parts.sessions) as session:
            kept = session.get_one(ModelImport, asked.json()["id"])
            authority = UploadAuthority.from_json(kept.requested_by, kept.authority or "")
            assert set(authority.scopes) == {Scope.MODELS_WRITE, Scope.MODELS_READ}
            assert len(authority.revocable) == 2
            require_still(session, authority, "digits")
        shown = admin.get(asked.headers["location"]).json()
        assert (shown["state"], shown["version"], shown["error"]) == ("waiting", None, None)
        assert admin.get("/admin/models/digits/imports").json()["imports"] == [shown]
        assert refused(admin.get("/admin/models/digits/imports/imp_0"), 404, "import_not_found")
        assert refused(admin.get(f"/admin/models/other/imports/{shown['id']}"), 404, "import_not_found")
        wrong = admin.post("/admin/models/digits/imports", json={"uri": "http://169.254.169.254/"})
        assert refused(wrong, 422, "import_uri_invalid")
        for _ in range(imports.MOST_UNFINISHED - 1):
            admin.post("/admin/models/digits/imports", json={"uri": "models:/digits/1"})
        full = admin.post("/admin/models/digits/imports", json={"uri": "models:/digits/1"})
        assert refused(full, 429, "too_many_imports")


def test_without_a_server_in_the_settings_there_are_no_imports(redis_server: RedisServer, tmp_path: Path):
    with (
        live_gateway(tmp_path, redis_url=redis_server.url, key_prefix="noimports") as gateway,
        gateway.client([Scope.MODELS_WRITE], [EVERY_MODEL]) as admin,
    ):
        answer = admin.post("/admin/models/digits/imports", json={"uri": "models:/digits/1"})
        assert refused(answer, 409, "imports_off")


def test_imports_that_ended_long_ago_are_forgotten(office: Office):
    old, unfinished = office.ask(), office.ask()
    with transaction(office.sessions) as session:
        session.get_one(ModelImport, old).ended_at = 1
        assert imports.purge(session) == 1
        assert imports.purge(session) == 0
    with transaction(office.sessions) as session:
        assert session.get(ModelImport, old) is None
        assert session.get(ModelImport, unfinished) is not None
