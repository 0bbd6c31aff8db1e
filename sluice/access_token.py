"""The client's access token: asked for with its id and secret, and renewed before it ends. No secret is ever shown."""

from __future__ import annotations

import base64
import copy
import json
import ssl
import time

import httpx

from sluice.answers import Json, NoGateway, SluiceFailed, Unreachable, plain, read_answer

RENEW_SECONDS = 60.0
TOKEN_PATH = "/oauth/token"  # noqa: S105 - an address
_BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
# What OpenSSL says of an answer that is plain HTTP.
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}
TOKEN_FORM = {"grant_type": "client_credentials"}
# Through which people call: a public client (RFC 6749, section 2.1), which has no secret.
CONSOLE = "sluice-console"
PUBLIC = {"client_id": CONSOLE}


class AccessToken:
    """The token that is used now, if any; whoever holds it sees to it that one thread at a time changes it."""

    def __init__(self) -> None:
        self._text = ""
        self._renew_at = float("-inf")
        self.failures = 0
        self._failure: SluiceFailed | None = None

    def fresh(self, refused: str | None = None) -> str | None:
        """The token while it is good for a while; None where a new one is needed.

        `refused` is one that the gateway did not take: where it is no longer this one, another caller has renewed it.
        """
        if time.monotonic() >= self._renew_at or self._text == refused:
            return None
        return self._text

    def fail(self, failure: SluiceFailed) -> None:
        """Remember why none came: it is the answer of everybody who waited for it meanwhile."""
        self.failures += 1
        self._failure = failure

    def require_no_failure_since(self, failures: int) -> None:
        """Raises what was remembered, where that was after so many failures: who waited does not wait anew in turn."""
        if self._failure is not None and self.failures > failures:
            raise copy.copy(self._failure)

    def take(self, response: httpx.Response, asked_at: float) -> str:
        """The token of an answer that was asked for at this moment of the monotonic clock.

        Raises Refused, and NoGateway where it is none that answers.
        """
        answer = read_answer(response)
        if not isinstance(answer, dict) or "access_token" not in answer:
            raise NoGateway(f"{plain(response.url.copy_with(path='/'))} answers, but is no Sluice gateway")
        self._text = str(answer["access_token"])
        seconds = float(answer.get("expires_in", 0))
        self._renew_at = asked_at + max(seconds - RENEW_SECONDS, seconds / 2)
        return self._text


def claims_of(token: str) -> Json:
    """What an access token says, for whoever got it from the gateway itself: nothing is checked. Raises NoGateway."""
    try:
        payload = token.split(".")[1]
        return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError) as error:
        raise NoGateway("the gateway's token is none that says whose it is") from error


def unreachable(base_url: httpx.URL, error: httpx.HTTPError, *, asked: bool = False) -> Unreachable:
    """What a failure of the network comes to; `asked` says that it was a call, and no question for a token."""
    reason = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
    kind = NoGateway if isinstance(error, httpx.UnsupportedProtocol) or _is_untrusted(error) else Unreachable
    late = asked and isinstance(error, httpx.ReadTimeout)
    return kind(f"{plain(base_url)} cannot be reached: {reason}", broken=isinstance(error, _BROKEN), late=late)


def _is_untrusted(error: BaseException | None) -> bool:
    """Whether a certificate is behind it, or a server without TLS, which is the same at the next try."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return isinstance(error, ssl.SSLCertVerificationError) or getattr(error, "reason", None) in _NO_TLS
