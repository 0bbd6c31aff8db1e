"""A connection to one gateway with a client's token, for asyncio: as `Link`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from math import inf

import httpx

from sluice.access_token import PUBLIC, TOKEN_PATH, AccessToken, unreachable
from sluice.answers import Json, SluiceFailed, read_answer, refusal
from sluice.event_reading import SILENCE_SECONDS
from sluice.exchange import Asked, FilePart, Pause, Renewal, Step, Steps, T
from sluice.model_uploads import content_of, length_of
from sluice.peers import http_options
from sluice.proofs import Proof


class AsyncLink:
    """May be used from many tasks of one event loop; the token is fetched once for all of them."""

    def __init__(self, base_url: str, proof: Proof, timeout_seconds: float) -> None:
        self._proof = proof
        self._http = httpx.AsyncClient(**http_options(base_url, timeout_seconds))
        self._timeout_seconds = timeout_seconds
        self._lock = asyncio.Lock()
        self._token = AccessToken()
        self._renewals: set[asyncio.Task[str]] = set()

    async def run(self, steps: Steps[T]) -> T:
        """What the steps give. Raises what they raise."""
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._carry_out(step)
                except SluiceFailed as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as ended:
            found: T = ended.value
            return found

    async def token(self, refused: str | None = None, *, new: bool = False) -> str:
        """A token that is good for a while. Raises Refused, Unreachable."""
        failures = self._token.failures
        async with self._lock:
            found = None if new else self._token.fresh(refused)
            if found is not None:
                return found
            self._token.require_no_failure_since(failures)
            # Once begun it is brought to its end, whoever has enough of waiting: a refresh token that was used and not
            # replaced would end the sign-in.
            renewal = asyncio.create_task(self._renewed())
            self._renewals.add(renewal)
            renewal.add_done_callback(self._renewed_once)
            try:
                return await asyncio.shield(renewal)
            except SluiceFailed as error:
                self._token.fail(error)
                raise

    async def post_form(self, path: str, form: Mapping[str, str]) -> Json:
        """As `Link.post_form`."""
        public = {} if self._proof.auth is not None else PUBLIC
        return read_answer(await self._post_form(path, {**form, **public}))

    @asynccontextmanager
    async def stream(self, asked: Asked, read_seconds: float | None = SILENCE_SECONDS) -> AsyncIterator[httpx.Response]:
        """An open answer that ends when its reader has had enough: httpx's errors come while it is read.

        `read_seconds` is how long nothing may come; None is as long as for other answers. Raises Refused, Unreachable.
        """
        token = await self.token()
        for attempt in range(2):
            timeout = httpx.Timeout(self._timeout_seconds, read=read_seconds or self._timeout_seconds)
            headers = {**asked.headers, "Authorization": f"Bearer {token}"}
            query = dict(asked.query) or None
            opened = self._http.stream(asked.method, asked.path, params=query, headers=headers, timeout=timeout)
            async with opened as response:
                if response.status_code == 401 and attempt == 0:
                    token = await self.token(token)
                    continue
                if not response.is_success:
                    await response.aread()
                    raise refusal(response)
                yield response
                return

    async def download(self, asked: Asked) -> AsyncIterator[bytes]:
        """The bytes of an answer, in pieces as they come. Raises Refused, Unreachable."""
        try:
            async with self.stream(asked, None) as response:
                async for piece in response.aiter_bytes():
                    yield piece
        except httpx.HTTPError as error:
            raise unreachable(self._http.base_url, error) from error

    async def close(self) -> None:
        await asyncio.gather(*self._renewals, return_exceptions=True)
        await self._http.aclose()

    async def _renewed(self) -> str:
        asked_at = time.monotonic()
        # In a thread: it may wait for another process.
        with closing(await asyncio.to_thread(self._proof.begin)) as turn:
            response = await self._post_form(TOKEN_PATH, turn.form, self._proof.renewal_seconds)
            turn.keep(response)
            return self._token.take(response, asked_at)

    def _renewed_once(self, renewal: asyncio.Task[str]) -> None:
        self._renewals.discard(renewal)
        if not renewal.cancelled():
            # Of one that nobody waits for any more, nobody asks for the reason either.
            renewal.exception()

    async def _carry_out(self, step: Step) -> httpx.Response | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        if isinstance(step, Renewal):
            await self.token(new=True)
            return None
        token = await self.token()
        response = await self._send(step, token)
        if response.status_code == 401:
            # The token was fine by our clock, so it was revoked: a rotated secret or a new signing key. Once more.
            response = await self._send(step, await self.token(token))
        return response

    async def _send(self, asked: Asked, token: str) -> httpx.Response:
        headers = {**asked.headers, **length_of(asked.content), "Authorization": f"Bearer {token}"}
        content = _content_of(asked.content) if isinstance(asked.content, FilePart) else asked.content
        try:
            return await self._http.request(
                asked.method, asked.path, params=dict(asked.query) or None, content=content, headers=headers
            )
        except httpx.HTTPError as error:
            raise unreachable(self._http.base_url, error, asked=True) from error

    async def _post_form(self, path: str, form: Mapping[str, str], seconds: float = inf) -> httpx.Response:
        auth, timeout = self._proof.auth or httpx.USE_CLIENT_DEFAULT, min(self._timeout_seconds, seconds)
        try:
            return await self._http.post(path, data=dict(form), auth=auth, timeout=timeout)
        except httpx.HTTPError as error:
            raise unreachable(self._http.base_url, error) from error


async def _content_of(part: FilePart) -> AsyncIterator[bytes]:
    """As `content_of`: the disk is read in a thread."""
    pieces = content_of(part)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
