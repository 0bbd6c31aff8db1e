"""The Python client for asyncio: as `Client`, and from the same parts.

async with AsyncClient.from_file("sluice-data/demo.json") as sluice:
    probabilities = await sluice.predict("mnist", images)  # images: shape (n, 28, 28), values from 0 to 1
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import httpx

from sluice.answers import Json
from sluice.async_event_reading import read_events_async
from sluice.async_job import AsyncJob
from sluice.async_link import AsyncLink
from sluice.calls import Prediction
from sluice.client_login import ClientLogin
from sluice.event_reading import PATIENCE_SECONDS as EVENT_PATIENCE_SECONDS
from sluice.event_reading import JobEvent
from sluice.exchange import JSON_TYPE, Asked, Progress, ask_json, encode_json
from sluice.job import event_stream, events_query
from sluice.map_options import MapOptions
from sluice.model_uploads import send_file, upload
from sluice.submit_options import SubmitOptions
from sluice.targets import Target

if TYPE_CHECKING:
    from sluice.described_model import ModelDescription
    from sluice.explanations import Explanation
    from sluice.given_inputs import Given


class AsyncClient(ClientLogin[AsyncLink]):
    """A client of one gateway, for many tasks of one event loop; use it as an asynchronous context manager."""

    _link_of = AsyncLink

    async def predict(
        self,
        model: str,
        given: Given,
        *,
        version: int | None = None,
        label: str | None = None,
        outputs: str | Sequence[str] | None = None,
    ) -> Prediction:
        """As `Client.predict`."""
        return await self._link.run(self._calls.predict(Target(model, version, label), given, outputs))

    async def submit(
        self,
        model: str,
        given: Given,
        *,
        version: int | None = None,
        label: str | None = None,
        **options: Unpack[SubmitOptions],
    ) -> AsyncJob:
        """As `Client.submit`."""
        return self._job(await self._link.run(self._calls.submit(Target(model, version, label), given, options)))

    async def submit_body(
        self,
        model: str,
        body: Json,
        *,
        version: int | None = None,
        label: str | None = None,
        **options: Unpack[SubmitOptions],
    ) -> AsyncJob:
        """As `Client.submit_body`."""
        return self._job(await self._link.run(self._calls.submit_body(Target(model, version, label), body, options)))

    async def submit_file(
        self,
        model: str,
        file: Path,
        *,
        format: str | None = None,
        version: int | None = None,
        label: str | None = None,
        progress: Progress | None = None,
        **options: Unpack[SubmitOptions],
    ) -> AsyncJob:
        """As `Client.submit_file`; `progress` is called in another thread."""
        target = Target(model, version, label)
        return self._job(await self._link.run(self._calls.submit_file(target, file, format, progress, options)))

    def map(self, model: str, instances: Iterable[Any], **options: Unpack[MapOptions]) -> AsyncIterator[Prediction]:
        """As `Client.map`, for `async for`."""
        from sluice.async_mapping import map_in_tasks
        from sluice.mapping import Mapped

        mapped = Mapped.of(model, options)
        return map_in_tasks(self._link, self._calls, mapped, instances)

    async def explain(
        self,
        model: str,
        given: Given,
        *,
        options: Mapping[str, object] | None = None,
        version: int | None = None,
        label: str | None = None,
    ) -> list[Explanation]:
        """As `Client.explain`."""
        return await self._link.run(self._calls.explain(Target(model, version, label), given, options))

    async def check(self, model: str, given: Given, *, version: int | None = None, label: str | None = None) -> Json:
        """As `Client.check`."""
        return await self._link.run(self._calls.check(Target(model, version, label), given))

    async def models(self) -> list[str]:
        """As `Client.models`."""
        return await self._link.run(self._calls.models())

    async def metadata(self, model: str, *, version: int | None = None, label: str | None = None) -> ModelDescription:
        """As `Client.metadata`."""
        return await self._link.run(self._calls.metadata(Target(model, version, label)))

    async def job(self, job_id: str) -> AsyncJob:
        """As `Client.job`."""
        return self._job(await self._link.run(self._calls.job(job_id)))

    def events(
        self,
        *,
        model: str | None = None,
        types: Iterable[str] = (),
        last_event: str | None = None,
        patience_seconds: float = EVENT_PATIENCE_SECONDS,
    ) -> AsyncIterator[JobEvent]:
        """As `Client.events`, for `async for`."""
        query = events_query(model, types)

        def connect(last_id: str | None) -> AbstractAsyncContextManager[httpx.Response]:
            return self._link.stream(event_stream("/v1/events", last_id, **query))

        return read_events_async(connect, last_event, patience_seconds=patience_seconds)

    async def get(self, path: str, **query: str | int) -> Json:
        """As `Client.get`."""
        return await self._link.run(ask_json(Asked("GET", path, query=query)))

    async def post(self, path: str, body: object = None) -> Json:
        """As `Client.post`."""
        return await self._call("POST", path, body)

    async def put(self, path: str, body: object) -> Json:
        """As `Client.put`."""
        return await self._call("PUT", path, body)

    async def patch(self, path: str, body: object) -> Json:
        """As `Client.patch`."""
        return await self._call("PATCH", path, body)

    async def delete(self, path: str, **query: str | int) -> Json:
        """As `Client.delete`."""
        return await self._link.run(ask_json(Asked("DELETE", path, query=query)))

    async def post_file(self, path: str, content: bytes, content_type: str) -> Json:
        """As `Client.post_file`."""
        return await self._link.run(ask_json(Asked("POST", path, content, {"Content-Type": content_type})))

    async def put_file(self, path: str, file: Path) -> Json:
        """As `Client.put_file`."""
        return await self._link.run(send_file(Asked("PUT", path), file))

    def download(self, path: str) -> AsyncIterator[bytes]:
        """As `Client.download`, for `async for`."""
        return self._link.download(Asked("GET", path))

    async def upload(
        self,
        model: str,
        file: Path,
        *,
        format: str | None = None,
        options: Mapping[str, str] | None = None,
        signature: str | None = None,
        progress: Progress | None = None,
    ) -> Json:
        """As `Client.upload`; `progress` is called in another thread."""
        return await self._link.run(upload(model, file, format, options, signature, progress))

    async def revoke(self, token: str) -> None:
        """As `Client.revoke`."""
        await self._link.post_form("/oauth/revoke", {"token": token})

    async def introspect(self, token: str) -> Json:
        """As `Client.introspect`."""
        return await self._link.post_form("/oauth/introspect", {"token": token})

    async def token(self) -> str:
        """As `Client.token`."""
        return await self._link.token()

    async def close(self) -> None:
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, method: str, path: str, body: object) -> Json:
        headers = {} if body is None else JSON_TYPE
        return await self._link.run(ask_json(Asked(method, path, encode_json(body), headers)))

    def _job(self, document: Json) -> AsyncJob:
        return AsyncJob(self._link, self._calls, document)
