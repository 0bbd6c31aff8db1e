"""How a link proves who asks when it wants a token: a client by its secret, a person by what a sign-in left behind."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Protocol

import httpx

from sluice.access_token import TOKEN_FORM


class Turn(Protocol):
    """One request for a token: what is asked, and what becomes of the answer. To be closed afterwards."""

    @property
    def form(self) -> Mapping[str, str]: ...

    def keep(self, response: httpx.Response) -> None:
        """To be told of the answer, whatever it says, before its token is used. Raises CredentialsInvalid."""

    def close(self) -> None: ...


class Proof(Protocol):
    """What a link has of whoever asks; `name` is shown. `auth` goes with questions about tokens, None of a person's."""

    @property
    def name(self) -> str: ...

    @property
    def auth(self) -> httpx.BasicAuth | None: ...

    @property
    def renewal_seconds(self) -> float:
        """How long a request for a token waits for the network at most."""

    def begin(self) -> Turn:
        """The next request for a token, which may have to wait for that of another process.

        Raises CredentialsInvalid where there is nothing to ask with.
        """


class ClientSecret:
    """A client's id and secret: good for any number of tokens, also at the same time."""

    form = TOKEN_FORM
    renewal_seconds = inf

    def __init__(self, client_id: str, client_secret: str) -> None:
        self.name = client_id
        self.auth: httpx.BasicAuth | None = httpx.BasicAuth(client_id, client_secret)

    def begin(self) -> ClientSecret:
        return self

    def keep(self, response: httpx.Response) -> None:
        """The secret stays as it is."""

    def close(self) -> None:
        """It held nothing."""
