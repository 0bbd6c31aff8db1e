"""The Python client: signs in, keeps its token fresh, and speaks JSON with a gateway. Imports nothing of the server.

with Sluice.from_file("sluice-data/demo.json") as sluice:
    probabilities = sluice.predict("mnist", images)  # images: shape (n, 28, 28), values from 0 to 1
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack
from urllib.parse import quote

import httpx

from sluice.answers import CredentialsInvalid, Json, Refused, SluiceFailed, Unreachable, read_answer, refusal
from sluice.event_reading import PATIENCE_SECONDS, SILENCE_SECONDS, JobEvent, read_events
from sluice.model_uploads import SMALL_BYTES, pieces, upload_in_pieces
from sluice.peers import is_loopback, trusted
from sluice.submitted_job import FORMATS, SubmitOptions, SubmittedJob, last_event_id, option_headers, persistently

__all__ = [
    "CredentialsInvalid", "JobEvent", "Json", "Refused", "Sluice", "SluiceFailed", "SubmitOptions", "SubmittedJob",
    "Unreachable", "model_path",
]  # fmt: skip

RENEW_SECONDS = 60.0


class Sluice:
    """A client of one gateway; may be used from several threads. Close it, or use it as a context manager."""

    def __init__(self, base_url: str, client_id: str, client_secret: str, *, timeout_seconds: float = 60.0) -> None:
        """Makes no connection yet; `timeout_seconds` bounds each wait for the network, not a whole call.

        For `https://`, the environment says whom to trust and what to show: `SLUICE_CA_FILE` (or `SSL_CERT_FILE`) is a
        PEM file of authorities in the place of the usual ones, `SLUICE_CLIENT_CERTIFICATE` and `SLUICE_CLIENT_KEY` are
        the caller's own certificate and key. Raises CredentialsInvalid where one of these files cannot be used.
        """
        self._basic = httpx.BasicAuth(client_id, client_secret)
        # A proxy of the environment cannot reach what listens on this machine's loopback address.
        self._http = httpx.Client(
            base_url=base_url.rstrip("/"),
            timeout=timeout_seconds,
            trust_env=not is_loopback(base_url),
            verify=trusted() if base_url.startswith("https:") else True,
        )
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = float("-inf")

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        admin: bool = False,
        timeout_seconds: float = 60.0,
        base_url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
    ) -> Self:
        """A client from a file with `base_url`, `client_id` and `client_secret`; raises CredentialsInvalid.

        What is given here counts instead of the file's.

        With `admin`, the administrator's pair of a file that has two, like `demo.json`: `admin_client_id` and so on.
        """
        try:
            found = json.loads(Path(path).read_text())
            prefix = "admin_" if admin and "admin_client_id" in found else ""
            url, found_id, secret = (
                found[name] for name in ("base_url", f"{prefix}client_id", f"{prefix}client_secret")
            )
        except OSError as error:
            raise CredentialsInvalid(f"cannot read {path}: {error.strerror}") from error
        except KeyError as error:
            raise CredentialsInvalid(f"{path} has no {error}") from error
        except (ValueError, TypeError) as error:
            raise CredentialsInvalid(f"{path} is not a JSON object") from error
        return cls(base_url or url, client_id or found_id, client_secret or secret, timeout_seconds=timeout_seconds)

    @property
    def base_url(self) -> str:
        """Where the gateway is."""
        return str(self._http.base_url).rstrip("/")

    def predict(self, model: str, instances: object, *, version: int | None = None, label: str | None = None) -> Json:
        """The predictions for a batch of instances, as nested lists: one for each instance.

        `instances` is a list or an array whose first dimension is the batch, or, for a model with several inputs,
        a list of objects. Raises Refused, Unreachable.
        """
        path = f"{model_path(model, version=version, label=label)}:predict"
        return self.post(path, {"instances": instances})["predictions"]

    def submit(
        self,
        model: str,
        instances: object,
        *,
        version: int | None = None,
        label: str | None = None,
        **options: Unpack[SubmitOptions],
    ) -> SubmittedJob:
        """A prediction as a job: it is written down before this returns, and waits for its turn.

        Where no answer comes, the same request is sent again: its key, one of its own unless it is given, sees that
        there is one job all the same. Raises Refused, Unreachable.
        """
        return self.submit_body(model, {"instances": instances}, version=version, label=label, **options)

    def submit_body(
        self,
        model: str,
        body: Json,
        *,
        version: int | None = None,
        label: str | None = None,
        **options: Unpack[SubmitOptions],
    ) -> SubmittedJob:
        """As `submit`, of a whole request: `{"instances": …}` or `{"inputs": …}`."""
        path = f"{model_path(model, version=version, label=label)}:submit"
        content = _encode(body)
        headers = option_headers(options)
        return SubmittedJob(self, persistently(lambda: self._call("POST", path, content=content, headers=headers)))

    def submit_file(
        self,
        model: str,
        file: Path,
        *,
        format: str | None = None,
        version: int | None = None,
        label: str | None = None,
        progress: Callable[[int, int], None] | None = None,
        **options: Unpack[SubmitOptions],
    ) -> SubmittedJob:
        """A file of many rows as one job; its answers are the job's `lines`, in the order of the rows.

        `format` is jsonl, csv, npz, parquet or images; without it, the ending of the file's name says it. `progress` is
        called as for `upload`. Raises Refused, Unreachable, OSError.
        """
        path = f"{model_path(model, version=version, label=label)}:batch"
        known = format or FORMATS.get(file.suffix.lower())
        query = {} if known is None else {"format": known}
        return SubmittedJob(self, self._send_file(path, query, file, option_headers(options), progress))

    def job(self, job_id: str) -> SubmittedJob:
        """A job of this client by its id. Raises Refused (404), Unreachable."""
        return SubmittedJob(self, self.get(f"/v1/jobs/{quote(job_id, safe='')}"))

    def events(
        self,
        *,
        model: str | None = None,
        types: Iterable[str] = (),
        last_event: str | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> Iterator[JobEvent]:
        """What happens to this client's jobs from now on, or since an event with the id `last_event`; never ends.

        `types` are names of events, otherwise the ends of jobs; each end comes once, also over breaks of the
        connection. Raises Refused, and Unreachable where no gateway answers for `patience_seconds`.
        """
        asked = {"model": model, "types": ",".join(types)}
        query = {name: value for name, value in asked.items() if value}

        def connect(last_id: str | None) -> AbstractContextManager[httpx.Response]:
            return self.stream("/v1/events", last_event_id(last_id), **query)

        return read_events(connect, last_event, patience_seconds=patience_seconds)

    @contextmanager
    def stream(self, path: str, headers: dict[str, str], **query: str) -> Iterator[httpx.Response]:
        """An open answer of server-sent events. Raises Refused, Unreachable, and httpx's errors while it is read."""
        for renewed in (False, True):
            sent = {**headers, "Accept": "text/event-stream", "Authorization": f"Bearer {self._fresh_token()}"}
            timeout = httpx.Timeout(self._timeout_seconds, read=SILENCE_SECONDS)
            with self._http.stream("GET", path, params=query, headers=sent, timeout=timeout) as response:
                if response.status_code == 401 and not renewed:
                    self._renew()
                    continue
                if not response.is_success:
                    response.read()
                    raise refusal(response)
                yield response
                return

    def get(self, path: str, **query: str | int) -> Json:
        """The JSON that a GET answers. Raises Refused, Unreachable."""
        return self._call("GET", path, query=query)

    def post(self, path: str, body: object = None) -> Json:
        """The JSON that a POST of this JSON answers, None for an empty answer. Raises Refused, Unreachable."""
        return self._call("POST", path, content=_encode(body))

    def delete(self, path: str, **query: str | int) -> Json:
        """Asks for something to be removed; the JSON that it answers, if any. Raises Refused, Unreachable."""
        return self._call("DELETE", path, query=query)

    def download(self, path: str) -> Iterator[bytes]:
        """The bytes that a GET answers, in pieces as they come. Raises Refused, Unreachable."""
        try:
            with self._http.stream("GET", path, headers={"Authorization": f"Bearer {self._fresh_token()}"}) as response:
                if not response.is_success:
                    response.read()
                    raise refusal(response)
                yield from response.iter_bytes()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def put(self, path: str, body: object) -> Json:
        """As `post`."""
        return self._call("PUT", path, content=_encode(body))

    def patch(self, path: str, body: object) -> Json:
        """As `post`."""
        return self._call("PATCH", path, content=_encode(body))

    def upload(
        self,
        model: str,
        file: Path,
        *,
        format: str | None = None,
        options: Mapping[str, str] | None = None,
        signature: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Json:
        """Uploads a file as a new version of a model and returns what the gateway answers; preparation follows.

        `format` is keras, h5, onnx, savedmodel or torchscript; only for ONNX the gateway cannot tell by itself, so the
        file's name must end in `.onnx` then. `options` are the upload's others: `signature` of a SavedModel, `inputs`
        of TorchScript. `signature` is one of an upload key over the model's name and the file. Reads the file piece by
        piece and calls `progress` with the bytes sent so far and in all. Where a connection breaks, it goes on with the
        rest of a large file. Raises Refused, Unreachable, OSError.
        """
        format = format or ("onnx" if file.suffix.lower() == ".onnx" else None)
        path = f"/admin/models/{quote(model, safe='')}"
        headers = {} if signature is None else {"Sluice-Signature": signature}
        query = {**(options or {}), **({"format": format} if format else {})}
        if file.stat().st_size <= SMALL_BYTES:
            return self._send_file(f"{path}/versions", query, file, headers, progress)
        self._renew()
        return upload_in_pieces(self._send, f"{path}/uploads", file, query, headers, progress)

    def revoke(self, token: str) -> None:
        """Takes back an access token of this client (RFC 7009); another's stays as it is."""
        self._ask_about("/oauth/revoke", token)

    def introspect(self, token: str) -> Json:
        """What a token of this client says and whether it is good (RFC 7662); any, for an administrator."""
        return self._ask_about("/oauth/introspect", token)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put_file(self, path: str, file: Path) -> Json:
        """The JSON that a PUT of a file's bytes answers. Raises Refused, Unreachable, OSError."""
        return self._send_file(path, {}, file, {}, None, method="PUT")

    def _send_file(
        self,
        path: str,
        query: dict[str, str],
        file: Path,
        headers: dict[str, str],
        progress: Callable[[int, int], None] | None,
        method: str = "POST",
    ) -> Json:
        size = file.stat().st_size
        # A stream cannot be sent a second time: the token must last for the whole upload.
        self._renew()
        sent = {"Content-Length": str(size), "Content-Type": "application/octet-stream", **headers}
        content = pieces(file, 0, size, size, progress)
        return read_answer(self._send(method, path, query=query, content=content, headers=sent))

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Json:
        headers = {**({} if content is None else {"Content-Type": "application/json"}), **(headers or {})}
        response = self._send(method, path, query=query, content=content, headers=headers)
        if response.status_code == 401:
            # The token was fine by our clock, so it was revoked: a rotated secret or a new signing key. Once more.
            self._renew()
            response = self._send(method, path, query=query, content=content, headers=headers)
        return read_answer(response)

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None,
        content: bytes | Iterator[bytes] | None,
        headers: dict[str, str],
    ) -> httpx.Response:
        headers = {**headers, "Authorization": f"Bearer {self._fresh_token()}"}
        try:
            return self._http.request(method, path, params=query or None, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _fresh_token(self) -> str:
        with self._lock:
            if time.monotonic() >= self._renew_at:
                self._fetch_token()
            return self._token

    def _renew(self) -> None:
        with self._lock:
            self._fetch_token()

    def _fetch_token(self) -> None:
        asked_at = time.monotonic()
        try:
            response = self._http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=self._basic)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        answer = read_answer(response)
        if not isinstance(answer, dict) or "access_token" not in answer:
            raise Unreachable(f"{self._http.base_url} answers, but is no Sluice gateway")
        self._token = answer["access_token"]
        seconds = float(answer.get("expires_in", 0))
        self._renew_at = asked_at + max(seconds - RENEW_SECONDS, seconds / 2)

    def _ask_about(self, path: str, token: str) -> Json:
        try:
            return read_answer(self._http.post(path, data={"token": token}, auth=self._basic))
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> Unreachable:
        reason = (
            "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
        )
        return Unreachable(f"{self._http.base_url} cannot be reached: {reason}")


def model_path(model: str, *, version: int | None = None, label: str | None = None) -> str:
    """The path of a model, a version or a label in TensorFlow Serving's interface."""
    path = f"/v1/models/{quote(model, safe='')}"
    if version is not None:
        return f"{path}/versions/{version}"
    return path if label is None else f"{path}/labels/{quote(label, safe='')}"


def _encode(body: object) -> bytes | None:
    return None if body is None else json.dumps(body, default=_array, separators=(",", ":")).encode()


def _array(value: object) -> Json:
    """Arrays of numpy and of whatever else can say what it holds."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be sent as JSON")
