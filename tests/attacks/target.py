"""What is attacked: a gateway with an administrator, raw requests to it, and a look at all that it keeps."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy

from auth.keys import SigningKey
from auth.scopes import Scope
from tests.forgery import assembled, es256
from tests.quiet_gateway import QuietGateway, quiet_gateway

# What a refused request may leave behind: that it was refused, and how often somebody failed.
RECORDS = {"audit_entries", "audit_heads", "leases", "generation"}
# Of the gateway itself, which look for changes now and then.
OWN_THREADS = {"snapshot", "keys", "audit", "health"}
BODY = b'{"name": "attacker"}'


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as it came over the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - any JSON
        return json.loads(self.body)

    @property
    def challenge(self) -> str | None:
        return self.headers.get("www-authenticate")


class Target:
    """A gateway with an administrator whose tokens the attacks imitate."""

    def __init__(self, gateway: QuietGateway) -> None:
        self.gateway = gateway
        self.parts = gateway.parts
        self.admin_id, self.admin_secret = gateway.client("admin", list(Scope))
        self.token = gateway.token(self.admin_id, self.admin_secret)

    @property
    def key(self) -> SigningKey:
        """The key that the gateway signs with: what not even these attackers have, but for tokens that are right."""
        return self.parts.keys.ring.signing

    def header(self, **changes: object) -> dict[str, object]:
        """The header of a good token, with changes; `...` takes a member out."""
        made = {"typ": "at+jwt", "alg": "ES256", "kid": self.key.public.kid, **changes}
        return {name: value for name, value in made.items() if value is not ...}

    def claims(self, **changes: object) -> dict[str, object]:
        """The claims of a good token of the administrator, with changes; `...` takes a member out."""
        now = int(time.time())
        made = {
            "iss": "sluice", "aud": "sluice", "sub": self.admin_id, "client_id": self.admin_id,
            "scope": "clients:admin predict", "jti": "forged", "iat": now, "nbf": now, "exp": now + 600, **changes,
        }  # fmt: skip
        return {name: value for name, value in made.items() if value is not ...}

    def signed(self, header: object = None, claims: object = None, key: SigningKey | None = None) -> str:
        """A token over any header and claims (objects, or their text), properly signed, by our key unless it says."""
        texts = [
            part if isinstance(part, bytes) else json.dumps(part).encode()
            for part in (self.header() if header is None else header, self.claims() if claims is None else claims)
        ]
        return assembled(texts[0], texts[1], lambda message: es256(message, key or self.key))

    def send(self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]] = (), body: bytes = b"") -> Answer:
        """One request, its bytes exactly these."""
        lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", b"Connection: close"]
        lines += [name + b": " + value for name, value in headers]
        if body:
            lines += [b"Content-Length: %d" % len(body)]
        return self.send_raw(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def send_raw(self, request: bytes) -> Answer:
        address = urlsplit(str(self.gateway.http.base_url))
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=20) as connection:
            # A request that is refused half-way may meet a closed connection.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request)
            response = HTTPResponse(connection)
            response.begin()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, named, response.read())

    def create_client(self, *authorizations: bytes, query: str = "") -> Answer:
        """An act that only an administrator may do, with these Authorization headers."""
        headers = [(b"Authorization", value) for value in authorizations]
        return self.send("POST", f"/admin/clients{query}", [*headers, (b"Content-Type", b"application/json")], BODY)

    def list_clients(self, *authorizations: bytes) -> Answer:
        """The harmless act with which a token is shown to be good."""
        return self.send("GET", "/admin/clients", [(b"Authorization", value) for value in authorizations])

    def kept(self) -> dict[str, list[tuple[object, ...]]]:
        """Every row of every table, but for records of what was tried."""
        engine = self.parts.engine
        names = set(sqlalchemy.inspect(engine).get_table_names()) - RECORDS
        with engine.connect() as connection:
            return {name: sorted(_rows(connection, name), key=repr) for name in sorted(names)}

    @contextlib.contextmanager
    def asked(self) -> Iterator[list[str]]:
        """What requests within the context ask the database: work that takes as long for everybody, without a clock.

        Neither the records of what was tried nor the gateway's own looks belong to it.
        """
        statements: list[str] = []

        def listen(*arguments: object) -> None:
            statement = str(arguments[2])
            if threading.current_thread().name not in OWN_THREADS and "audit" not in statement:
                statements.append(statement)

        sqlalchemy.event.listen(self.parts.engine, "before_cursor_execute", listen)
        try:
            yield statements
        finally:
            sqlalchemy.event.remove(self.parts.engine, "before_cursor_execute", listen)

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Nothing that is kept changes within the context."""
        before = self.kept()
        yield
        assert self.kept() == before


@contextlib.contextmanager
def target(folder: Path, **settings: object) -> Iterator[Target]:
    """A gateway to attack, with all its files in `folder`."""
    with quiet_gateway(folder, **settings) as gateway:
        yield Target(gateway)


def _rows(connection: sqlalchemy.Connection, table: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in connection.execute(sqlalchemy.text(f'SELECT * FROM "{table}"'))]  # noqa: S608 - ours
