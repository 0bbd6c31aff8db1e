"""A server that answers imports as MLflow does, and a background worker's work done in the test's own process."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from auth import clients
from auth.grants import ADMINISTRATION, GrantSpec, set_grants
from auth.scopes import Scope
from auth.upload_authority import UploadAuthority
from model_store import imports
from model_store.artifacts import Artifacts
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.imports import ModelImport
from model_store.tables import Version
from workers.mlflow.importing import run_import
from workers.settings import BackgroundSettings

RUN = "8e9063a3019c4ff5b1a59b0136d2dc70"
PLACE = "mlflow-artifacts:/0/models/m-1/artifacts"
FILES = {"MLmodel": b"flavors: {}", "data/model.keras": b"weights" * 100}

Answer = tuple[int, object]


class Mlflow:
    """A server that answers as MLflow 3.17 does to what an import asks, and notes what it was asked."""

    def __init__(self, place: str = PLACE, files: dict[str, bytes] | None = None) -> None:
        self.place = place
        self.files = FILES if files is None else files
        self.asked: list[str] = []
        self.credentials: list[str | None] = []
        self.instead: Callable[[str], tuple[int, dict[str, str], bytes] | None] = lambda _: None
        self.sizes: dict[str, int] = {}
        self.url = ""

    def answer(self, target: str) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(target)
        if found := self.instead(target):
            return found
        parts = urlsplit(target.removeprefix("/api/2.0/"))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path.startswith("mlflow-artifacts/artifacts/"):
            name = parts.path.removeprefix("mlflow-artifacts/artifacts/0/models/m-1/artifacts/")
            return (200, {}, self.files[name]) if name in self.files else (404, {}, b"{}")
        document = {
            "mlflow/registered-models/alias": {"model_version": {"version": "3", "run_id": RUN, "status": "READY"}},
            "mlflow/model-versions/get": {"model_version": {"version": "3", "run_id": RUN, "status": "READY"}},
            "mlflow/model-versions/get-download-uri": {"artifact_uri": self.place},
            "mlflow-artifacts/artifacts": {"files": self.listed(query.get("path", ""))},
        }.get(parts.path)
        return (404, {}, b"{}") if document is None else (200, {}, json.dumps(document).encode())

    def listed(self, path: str) -> list[dict[str, object]]:
        folder = path.removeprefix("0/models/m-1/artifacts").lstrip("/")
        found: dict[str, dict[str, object]] = {}
        for name, data in self.files.items():
            if name.startswith(folder and f"{folder}/"):
                rest = name.removeprefix(folder and f"{folder}/")
                last, slash, _ = rest.partition("/")
                size = self.sizes.get(name, len(data))
                found[last] = {"path": last, "is_dir": bool(slash)} | ({} if slash else {"file_size": size})
        return list(found.values())


@contextmanager
def serving(mlflow: Mlflow) -> Iterator[Mlflow]:
    class Requests(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mlflow.credentials.append(self.headers.get("authorization"))
            status, headers, body = mlflow.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Requests) as made:
        mlflow.url = f"http://127.0.0.1:{made.server_address[1]}"
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield mlflow
        finally:
            made.shutdown()
            thread.join()


class Office:
    """A background worker's work done in this process."""

    def __init__(self, folder: Path) -> None:
        self.settings = BackgroundSettings(
            database_url=f"sqlite:///{folder / 'sluice.db'}", store_dir=folder / "store", upload_limit_bytes=100_000
        )
        self.engine = connect(self.settings)
        self.sessions: Sessions = sessions_of(self.engine)
        self.artifacts = Artifacts.of(self.settings)
        with transaction(self.sessions) as session:
            made, _ = clients.create(session, "importer", [Scope.MODELS_WRITE], b"p" * 32)
            set_grants(session, made.id, [GrantSpec("digits", actions=ADMINISTRATION)])
            session.refresh(made)
            self.client = made.id
            self.authority = UploadAuthority(made.id, (Scope.MODELS_WRITE,), ("jti", "jti"), made.tokens_not_before)

    def ask(self, uri: str = "models:/digits@champion") -> str:
        with transaction(self.sessions) as session:
            return imports.request(session, "digits", uri, self.client, self.authority.to_json()).id

    def run(self, import_id: str, url: str, **settings: object) -> ModelImport:
        own = self.settings.model_copy(update={"mlflow_url": url, **settings})
        run_import(self.sessions, self.artifacts, own, import_id)
        return self.look(import_id)

    def look(self, import_id: str) -> ModelImport:
        with transaction(self.sessions) as session:
            return session.get_one(ModelImport, import_id)

    def versions(self) -> int:
        with transaction(self.sessions) as session:
            return session.query(Version).count()
