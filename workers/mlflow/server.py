"""The MLflow server's REST interface, as far as importing needs it: resolving a URI, listing and reading artifacts.

Only the settings' server is ever asked. Where a model's files lie, the server says in a URI of its own: what it serves
itself (`mlflow-artifacts:`) is fetched from it, and any other place is refused, since its address is somebody's words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from workers.mlflow.settings import MlflowAccessSettings
from workers.mlflow.sources import RegistryUnavailable, RemoteFile, Source, SourceNotFound, SourceRefused
from workers.mlflow.uris import Logged, OfRun, Registered

ANSWER_BYTES = 4 * 1024**2
MOST_FILES = 512
DEPTH_LIMIT = 12
NAME_CHARACTERS = 255
SIZE_DIGITS = 16
SCHEME = "mlflow-artifacts"


class MlflowServer:
    """Raises RegistryUnavailable in every method, SourceNotFound for what is not there.

    `require_time` is asked before each request and at each piece that comes, and raises when there is no more.
    """

    def __init__(self, settings: MlflowAccessSettings, require_time: Callable[[], None]) -> None:
        self._require_time = require_time
        token = "" if settings.mlflow_token is None else settings.mlflow_token.get_secret_value()
        user, colon, password = token.partition(":")
        headers = {"authorization": f"Bearer {token}"} if token and not colon else {}
        self._client = httpx.Client(
            base_url=settings.mlflow_url.rstrip("/") + "/api/2.0/",
            headers=headers,
            auth=(user, password) if colon else None,
            timeout=settings.mlflow_seconds,
            # A redirect is an address in somebody's words as well; a proxy of the environment's is another server.
            follow_redirects=False,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def resolve(self, uri: str, named: Registered | Logged | OfRun) -> Source:
        """What a parsed URI leads to; raises SourceRefused where its files are not the server's own to give."""
        match named:
            case Registered():
                return self._registered(uri, named)
            case Logged():
                return self._logged(uri, named.model_id)
            case OfRun():
                return self._of_run(uri, named)

    def files(self, source: Source) -> list[RemoteFile]:
        """All files of a model, in the order of their paths; raises SourceRefused for too many or strange names."""
        found: list[RemoteFile] = []
        folders = [""]
        while folders:
            folder = folders.pop()
            for entry in self._listed(source, folder):
                path = f"{folder}{_plain(entry.get('path'))}"
                if entry.get("is_dir"):
                    folders.append(path + "/")
                else:
                    found.append(RemoteFile(path, _size(entry.get("file_size"))))
                if len(found) + len(folders) > MOST_FILES or path.count("/") > DEPTH_LIMIT:
                    raise SourceRefused(f"the model has more than {MOST_FILES} files, or too deep folders")
        return sorted(found, key=lambda file: file.path)

    def read(self, source: Source, file: RemoteFile) -> Iterator[bytes]:
        """A file's bytes, in pieces."""
        self._require_time()
        try:
            with self._client.stream("GET", f"{SCHEME}/artifacts/{quote(f'{source.artifacts}/{file.path}')}") as answer:
                _require_ok(answer, f"the file {file.path}")
                # Not gathered to larger pieces: each one that comes renews the import's lease.
                for piece in answer.iter_bytes():
                    self._require_time()
                    yield piece
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _away(error) from error

    def _registered(self, uri: str, named: Registered) -> Source:
        if named.alias is not None:
            found = self._asked("mlflow/registered-models/alias", name=named.name, alias=named.alias)
        else:
            found = self._asked("mlflow/model-versions/get", name=named.name, version=str(named.version))
        version = _table(found.get("model_version"))
        number, run_id = str(version.get("version", "")), version.get("run_id") or None
        if version.get("status", "READY") != "READY":
            raise SourceRefused(f"version {number} of {named.name} is {version.get('status')} in the registry")
        place = self._asked("mlflow/model-versions/get-download-uri", name=named.name, version=number)
        located = _located(str(place.get("artifact_uri", "")), self._client.base_url.host)
        return Source(uri, located, run_id, number, version.get("model_id") or None)

    def _logged(self, uri: str, model_id: str) -> Source:
        info = _table(_table(self._asked(f"mlflow/logged-models/{model_id}").get("model")).get("info"))
        located = _located(str(info.get("artifact_uri", "")), self._client.base_url.host)
        return Source(uri, located, info.get("source_run_id") or None, model_id=model_id)

    def _of_run(self, uri: str, named: OfRun) -> Source:
        run = _table(self._asked("mlflow/runs/get", run_id=named.run_id).get("run"))
        # Since MLflow 3 a run's models lie in places of their own; before, below the run's.
        for output in _table(run.get("outputs", {})).get("model_outputs", [])[:MOST_FILES]:
            model_id = str(_table(output).get("model_id", ""))
            info = _table(_table(self._asked(f"mlflow/logged-models/{quote(model_id, '')}").get("model")).get("info"))
            if info.get("name") == named.path:
                located = _located(str(info.get("artifact_uri", "")), self._client.base_url.host)
                return Source(uri, located, named.run_id, model_id=model_id)
        place = str(_table(run.get("info")).get("artifact_uri", ""))
        return Source(uri, f"{_located(place, self._client.base_url.host)}/{named.path}", named.run_id)

    def _listed(self, source: Source, folder: str) -> list[dict[str, Any]]:
        place = f"{source.artifacts}/{folder}".rstrip("/")
        listed = self._asked(f"{SCHEME}/artifacts", path=place).get("files", [])
        if not isinstance(listed, list):
            raise RegistryUnavailable("the MLflow server answers otherwise than MLflow does")
        if not listed and not folder:
            raise SourceNotFound("there are no files of a model there")
        return [_table(entry) for entry in listed]

    def _asked(self, route: str, /, **query: str) -> dict[str, Any]:
        self._require_time()
        try:
            with self._client.stream("GET", route, params=query) as answer:
                _require_ok(answer, "this")
                body = b""
                for piece in answer.iter_bytes():
                    self._require_time()
                    body += piece
                    if len(body) > ANSWER_BYTES:
                        raise RegistryUnavailable("the MLflow server's answer has no end")
            return _table(json.loads(body))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _away(error) from error
        except (ValueError, RecursionError) as error:
            raise RegistryUnavailable("the MLflow server answers otherwise than MLflow does") from error


def _require_ok(answer: httpx.Response, what: str) -> None:
    if answer.status_code in (400, 404):
        raise SourceNotFound(f"the MLflow server does not know {what}")
    if answer.status_code in (401, 403):
        raise SourceRefused("the MLflow server does not let this installation read: SLUICE_MLFLOW_TOKEN says who it is")
    if answer.status_code != httpx.codes.OK:
        raise RegistryUnavailable(f"the MLflow server answers {answer.status_code}")


def _located(uri: str, host: str) -> str:
    """The path below the server's own artifacts; raises SourceRefused for every other place, RegistryUnavailable."""
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise RegistryUnavailable("the MLflow server answers otherwise than MLflow does") from error
    if parts.scheme != SCHEME or (parts.hostname or host) != host:
        raise SourceRefused(
            "the model's files lie elsewhere than at the MLflow server, and only it is asked: let it serve them"
            " (`mlflow server --serve-artifacts`)"
        )
    names = [name for name in parts.path.split("/") if name]
    if ".." in names or not names:
        raise SourceRefused("the MLflow server names a place that is none")
    return "/".join(names)


def _size(said: object) -> int:
    # As JSON of protocol buffers it may come as a text; of a file without bytes, it does not come at all.
    size = 0 if said is None else said
    if isinstance(said, str) and said.isdecimal() and len(said) < SIZE_DIGITS:
        size = int(said)
    if not isinstance(size, int) or not 0 <= size < 10**SIZE_DIGITS:
        raise RegistryUnavailable("the MLflow server answers otherwise than MLflow does")
    return size


def _plain(name: object) -> str:
    last = name.rpartition("/")[2] if isinstance(name, str) else ""
    if not last or last in (".", "..") or not last.isprintable() or "\\" in last or len(last) > NAME_CHARACTERS:
        raise SourceRefused("the model has a file whose name is not taken")
    return last


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RegistryUnavailable("the MLflow server answers otherwise than MLflow does")
    return value


def _away(error: Exception) -> RegistryUnavailable:
    return RegistryUnavailable(f"the MLflow server does not answer: {type(error).__name__}")
