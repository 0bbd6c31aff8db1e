"""A connection to one gateway with a client's token, for threads: carries out steps, opens streams."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager
from math import inf

import httpx

from sluice.access_token import PUBLIC, TOKEN_PATH, AccessToken, unreachable
from sluice.answers import Json, SluiceFailed, read_answer, refusal
from sluice.event_reading import SILENCE_SECONDS
from sluice.exchange import Asked, FilePart, Pause, Renewal, Step, Steps, T
from sluice.model_uploads import content_of, length_of
from sluice.peers import http_options
from sluice.proofs import Proof


class Link:
    """May be used from several threads; the token is fetched once for all of them."""

    def __init__(self, base_url: str, proof: Proof, timeout_seconds: float) -> None:
        self._proof = proof
        self._options = http_options(base_url, timeout_seconds)
        self._timeout_seconds = timeout_seconds
        self._token = AccessToken()
        self._begin()
        _LINKS.add(self)

    def begin_anew(self) -> None:
        """In a process that was forked: on one connection, two would read each other's answers."""
        # The parent's are left alone: a thread that is not here any more may have held their locks. Sockets that nobody
        # holds would complain of not having been closed.
        _OF_PARENTS.append(self._http)
        self._end.detach()
        self._begin()

    def run(self, steps: Steps[T], stopped: threading.Event | None = None) -> T:
        """What the steps give. Raises what they raise, and CancelledError instead of a pause once it is stopped."""
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._carry_out(step, stopped)
                except SluiceFailed as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as ended:
            found: T = ended.value
            return found

    def token(self, refused: str | None = None, *, new: bool = False) -> str:
        """A token that is good for a while. Raises Refused, Unreachable."""
        failures = self._token.failures
        with self._lock:
            found = None if new else self._token.fresh(refused)
            if found is not None:
                return found
            self._token.require_no_failure_since(failures)
            try:
                return self._renewed()
            except SluiceFailed as error:
                self._token.fail(error)
                raise

    def post_form(self, path: str, form: Mapping[str, str]) -> Json:
        """The JSON that a form about tokens is answered. Raises Refused, Unreachable.

        A client's id and secret go with it; of a person, the name of what people sign in through.
        """
        return read_answer(self._post_form(path, form if self._proof.auth is not None else {**form, **PUBLIC}))

    @contextmanager
    def stream(self, asked: Asked, read_seconds: float | None = SILENCE_SECONDS) -> Iterator[httpx.Response]:
        """An open answer that ends when its reader has had enough: httpx's errors come while it is read.

        `read_seconds` is how long nothing may come; None is as long as for other answers. Raises Refused, Unreachable.
        """
        token = self.token()
        for attempt in range(2):
            timeout = httpx.Timeout(self._timeout_seconds, read=read_seconds or self._timeout_seconds)
            headers = {**asked.headers, "Authorization": f"Bearer {token}"}
            query = dict(asked.query) or None
            with self._http.stream(
                asked.method, asked.path, params=query, headers=headers, timeout=timeout
            ) as response:
                if response.status_code == 401 and attempt == 0:
                    token = self.token(token)
                    continue
                if not response.is_success:
                    response.read()
                    raise refusal(response)
                yield response
                return

    def download(self, asked: Asked) -> Iterator[bytes]:
        """The bytes of an answer, in pieces as they come. Raises Refused, Unreachable."""
        try:
            with self.stream(asked, None) as response:
                yield from response.iter_bytes()
        except httpx.HTTPError as error:
            raise unreachable(self._http.base_url, error) from error

    def close(self) -> None:
        self._http.close()

    def _begin(self) -> None:
        self._http = httpx.Client(**self._options)
        self._lock = threading.Lock()
        # Who never closes a client, as in a notebook, leaves no connection behind.
        self._end = weakref.finalize(self, self._http.close)

    def _renewed(self) -> str:
        asked_at = time.monotonic()
        with closing(self._proof.begin()) as turn:
            response = self._post_form(TOKEN_PATH, turn.form, self._proof.renewal_seconds)
            turn.keep(response)
            return self._token.take(response, asked_at)

    def _carry_out(self, step: Step, stopped: threading.Event | None) -> httpx.Response | None:
        if isinstance(step, Pause):
            if stopped is None:
                time.sleep(step.seconds)
            elif stopped.wait(step.seconds):
                raise CancelledError
            return None
        if isinstance(step, Renewal):
            self.token(new=True)
            return None
        token = self.token()
        response = self._send(step, token)
        if response.status_code == 401:
            # The token was fine by our clock, so it was revoked: a rotated secret or a new signing key. Once more.
            response = self._send(step, self.token(token))
        return response

    def _send(self, asked: Asked, token: str) -> httpx.Response:
        headers = {**asked.headers, **length_of(asked.content), "Authorization": f"Bearer {token}"}
        content = content_of(asked.content) if isinstance(asked.content, FilePart) else asked.content
        try:
            return self._http.request(
                asked.method, asked.path, params=dict(asked.query) or None, content=content, headers=headers
            )
        except httpx.HTTPError as error:
            raise unreachable(self._http.base_url, error, asked=True) from error

    def _post_form(self, path: str, form: Mapping[str, str], seconds: float = inf) -> httpx.Response:
        auth, timeout = self._proof.auth or httpx.USE_CLIENT_DEFAULT, min(self._timeout_seconds, seconds)
        try:
            return self._http.post(path, data=dict(form), auth=auth, timeout=timeout)
        except httpx.HTTPError as error:
            raise unreachable(self._http.base_url, error) from error


def _begin_anew() -> None:
    for link in list(_LINKS):
        link.begin_anew()


_LINKS = weakref.WeakSet[Link]()
_OF_PARENTS: list[httpx.Client] = []
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_begin_anew)
