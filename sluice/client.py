"""The Python client: signs in, keeps its token fresh, predicts, submits jobs. Imports nothing of the server.

with Client.from_file("sluice-data/demo.json") as sluice:
    probabilities = sluice.predict("mnist", images)  # images: shape (n, 28, 28), values from 0 to 1
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import httpx

from sluice.answers import CredentialsInvalid, Json, Refused, SluiceFailed, Unreachable
from sluice.calls import Prediction
from sluice.client_login import ClientLogin
from sluice.event_reading import PATIENCE_SECONDS as EVENT_PATIENCE_SECONDS
from sluice.event_reading import JobEvent, read_events
from sluice.exchange import JSON_TYPE, Asked, Progress, ask_json, encode_json
from sluice.job import Job, event_stream, events_query
from sluice.link import Link
from sluice.map_options import MapOptions
from sluice.model_uploads import send_file, upload
from sluice.submit_options import SubmitOptions
from sluice.targets import Target, model_path

if TYPE_CHECKING:
    from sluice.described_model import ModelDescription
    from sluice.explanations import Explanation
    from sluice.given_inputs import Given

__all__ = [
    "Client", "CredentialsInvalid", "Job", "JobEvent", "Json", "Refused", "SluiceFailed", "SubmitOptions",
    "Unreachable", "model_path",
]  # fmt: skip


class Client(ClientLogin[Link]):
    """A client of one gateway; may be used from several threads. Close it, or use it as a context manager."""

    _link_of = Link

    def predict(
        self,
        model: str,
        given: Given,
        *,
        version: int | None = None,
        label: str | None = None,
        outputs: str | Sequence[str] | None = None,
    ) -> Prediction:
        """The model's outputs for a batch of instances: an array, or for several outputs a dict of arrays by name.

        `given` is an array whose first dimension is the batch, for several inputs a dict of arrays; a list of
        instances; a `str`, which is one text; a `Path` or `bytes`, which is one image, recording or text file. The
        first dimension of what comes back is the batch, also where it is one. Numbers have the model's element types,
        texts are objects. `outputs` names one output, which comes alone, or several.

        Asked again, within the client's patience, where the gateway is away or busy: a prediction changes nothing.

        Raises InputInvalid, ModelNotFound, RateLimited, Unavailable, DeadlinePassed and other kinds of Refused;
        Unreachable; FileUnknown, OSError for a file; ValueError for outputs that the model does not give.
        """
        return self._link.run(self._calls.predict(Target(model, version, label), given, outputs))

    def submit(
        self,
        model: str,
        given: Given,
        *,
        version: int | None = None,
        label: str | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Job:
        """A prediction as a job, of whatever `predict` takes: written down before this returns, it waits for its turn.

        Where no answer comes, the same request is sent again: its key, one of its own unless it is given, sees that
        there is one job all the same. Raises as `predict`.
        """
        return self._job(self._link.run(self._calls.submit(Target(model, version, label), given, options)))

    def submit_body(
        self,
        model: str,
        body: Json,
        *,
        version: int | None = None,
        label: str | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Job:
        """As `submit`, of a whole request: `{"instances": …}` or `{"inputs": …}`."""
        return self._job(self._link.run(self._calls.submit_body(Target(model, version, label), body, options)))

    def submit_file(
        self,
        model: str,
        file: Path,
        *,
        format: str | None = None,
        version: int | None = None,
        label: str | None = None,
        progress: Progress | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Job:
        """A file of many rows as one job; its answers are the job's `lines`, in the order of the rows.

        `format` is jsonl, csv, npz, parquet or files; without it, the ending of the file's name says it. `progress` is
        called with the bytes sent so far and in all. Raises Refused, Unreachable, OSError.
        """
        target = Target(model, version, label)
        return self._job(self._link.run(self._calls.submit_file(target, file, format, progress, options)))

    def map(self, model: str, instances: Iterable[Any], **options: Unpack[MapOptions]) -> Iterator[Prediction]:
        """A prediction for each instance, in their order: `batch` of them in a request (32),
        `concurrency` requests at once (4).

        `instances` is an array, whose first dimension they are, or anything that gives one after the other: arrays,
        lists, dicts of arrays by input, texts, paths of files. Each prediction is an array without a batch, or a dict
        of them. At most `2 * concurrency` batches are held; a slow reader holds up what is sent.

        With a `checkpoint`, a file that need not exist, what was answered is written down: the same call after a break
        reads it there, and sends only what is missing. `progress` shows a bar on standard error.

        Raises as `predict`, at the batch that failed, and CheckpointInvalid for a file of another call.
        """
        from sluice.mapping import Mapped, map_in_threads

        mapped = Mapped.of(model, options)
        return map_in_threads(self._link, self._calls, mapped, instances)

    def explain(
        self,
        model: str,
        given: Given,
        *,
        options: Mapping[str, object] | None = None,
        version: int | None = None,
        label: str | None = None,
    ) -> list[Explanation]:
        """An explanation for each instance: what its score falls by without each of its parts.

        `given` is as for `predict`; `options` are the interface's: `class`, `output`, `patch`, `baseline` and others.
        It runs as a job, which is waited for, and takes the scope `explain`. Raises as `predict`, and JobFailed.
        """
        return self._link.run(self._calls.explain(Target(model, version, label), given, options))

    def check(self, model: str, given: Given, *, version: int | None = None, label: str | None = None) -> Json:
        """What a prediction would be read as, without running it: `valid`, `version`, `instances`, `inputs`.

        Raises InputInvalid, whose `answer` has what is `expected` and an `example` that works, and as `predict`.
        """
        return self._link.run(self._calls.check(Target(model, version, label), given))

    def models(self) -> list[str]:
        """The names of the models that this client may use. Raises Refused, Unreachable."""
        return self._link.run(self._calls.models())

    def metadata(self, model: str, *, version: int | None = None, label: str | None = None) -> ModelDescription:
        """What a model takes and gives: names, element types and shapes. Raises ModelNotFound, Refused, Unreachable."""
        return self._link.run(self._calls.metadata(Target(model, version, label)))

    def job(self, job_id: str) -> Job:
        """A job of this client by its id. Raises NotFound, Unreachable."""
        return self._job(self._link.run(self._calls.job(job_id)))

    def events(
        self,
        *,
        model: str | None = None,
        types: Iterable[str] = (),
        last_event: str | None = None,
        patience_seconds: float = EVENT_PATIENCE_SECONDS,
    ) -> Iterator[JobEvent]:
        """What happens to this client's jobs from now on, or since an event with the id `last_event`; never ends.

        `types` are names of events, otherwise the ends of jobs; each end comes once, also over breaks of the
        connection. Raises Refused, and Unreachable where no gateway answers for `patience_seconds`.
        """
        query = events_query(model, types)

        def connect(last_id: str | None) -> AbstractContextManager[httpx.Response]:
            return self._link.stream(event_stream("/v1/events", last_id, **query))

        return read_events(connect, last_event, patience_seconds=patience_seconds)

    def get(self, path: str, **query: str | int) -> Json:
        """The JSON that a GET answers. Raises Refused, Unreachable."""
        return self._link.run(ask_json(Asked("GET", path, query=query)))

    def post(self, path: str, body: object = None) -> Json:
        """The JSON that a POST of this JSON answers, None for an empty answer. Raises Refused, Unreachable."""
        return self._call("POST", path, body)

    def put(self, path: str, body: object) -> Json:
        """As `post`."""
        return self._call("PUT", path, body)

    def patch(self, path: str, body: object) -> Json:
        """As `post`."""
        return self._call("PATCH", path, body)

    def delete(self, path: str, **query: str | int) -> Json:
        """Asks for something to be removed; the JSON that it answers, if any. Raises Refused, Unreachable."""
        return self._link.run(ask_json(Asked("DELETE", path, query=query)))

    def post_file(self, path: str, content: bytes, content_type: str) -> Json:
        """The JSON that a POST of these bytes answers. Raises Refused, Unreachable."""
        return self._link.run(ask_json(Asked("POST", path, content, {"Content-Type": content_type})))

    def put_file(self, path: str, file: Path) -> Json:
        """The JSON that a PUT of a file's bytes answers. Raises Refused, Unreachable, OSError."""
        return self._link.run(send_file(Asked("PUT", path), file))

    def download(self, path: str) -> Iterator[bytes]:
        """The bytes that a GET answers, in pieces as they come. Raises Refused, Unreachable."""
        return self._link.download(Asked("GET", path))

    def upload(
        self,
        model: str,
        file: Path,
        *,
        format: str | None = None,
        options: Mapping[str, str] | None = None,
        signature: str | None = None,
        progress: Progress | None = None,
    ) -> Json:
        """Uploads a file as a new version of a model and returns what the gateway answers; preparation follows.

        `format` is keras, h5, onnx, savedmodel or torchscript; only for ONNX the gateway cannot tell by itself, so the
        file's name must end in `.onnx` then. `options` are the upload's others: `signature` of a SavedModel, `inputs`
        of TorchScript. `signature` is one of an upload key over the model's name and the file. Reads the file piece by
        piece and calls `progress` with the bytes sent so far and in all. Where a connection breaks, it goes on with the
        rest of a large file. Raises Refused, Unreachable, OSError.
        """
        return self._link.run(upload(model, file, format, options, signature, progress))

    def revoke(self, token: str) -> None:
        """Takes back an access token of this client (RFC 7009); another's stays as it is."""
        self._link.post_form("/oauth/revoke", {"token": token})

    def introspect(self, token: str) -> Json:
        """What a token of this client says and whether it is good (RFC 7662); any, for an administrator."""
        return self._link.post_form("/oauth/introspect", {"token": token})

    def token(self) -> str:
        """An access token that is good for a minute at least, for other programs. Raises Refused, Unreachable."""
        return self._link.token()

    def close(self) -> None:
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, path: str, body: object) -> Json:
        headers = {} if body is None else JSON_TYPE
        return self._link.run(ask_json(Asked(method, path, encode_json(body), headers)))

    def _job(self, document: Json) -> Job:
        return Job(self._link, self._calls, document)
