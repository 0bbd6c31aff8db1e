"""An admission for tests, with pictures of rights and models that a test replaces."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from auth.grants import GrantSpec
from auth.model_patterns import is_pattern
from auth.rights import ClientRights, Rights
from auth.scopes import Scope
from auth.tokens import Claims, Issuer, Verifier
from gateway.admission import Admission, Caller
from gateway.errors import RightsUnavailable
from model_store.catalog import Catalog, CatalogModel, CatalogVersion
from model_store.tables import State
from tests.forgery import FixedKeys, signing_key

NOW = 1_800_000_000


@dataclass
class Clock:
    """A clock that moves when it is told to; in seconds."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


class CountingVerifier(Verifier):
    """Counts how many tokens are really verified."""

    verified = 0

    def verify(self, token: str) -> Claims:
        self.verified += 1
        return super().verify(token)


def client(client_id: str = "cli_1", **changes: object) -> ClientRights:
    known = ClientRights(client_id, "reading-room", False, 0, frozenset({Scope.PREDICT, Scope.JOBS}), {})
    return replace(known, **changes)


def granting(*specs: GrantSpec) -> Mapping[str, tuple[GrantSpec, ...]]:
    return {model: tuple(spec for spec in specs if spec.model == model) for model in {spec.model for spec in specs}}


def catalog(
    states: Mapping[int, State], labels: Mapping[str, int] | None = None, also: Collection[str] = ()
) -> Catalog:
    """The model `mnist` with these versions and labels, and further models with an AVAILABLE version 1."""

    def model(name: str, states: Mapping[int, State], labels: Mapping[str, int]) -> CatalogModel:
        versions = {n: CatalogVersion(n, state, None, None, None, 64, 2, None, None) for n, state in states.items()}
        available = [number for number, state in states.items() if state is State.AVAILABLE]
        return CatalogModel(name, versions, labels, max(available, default=None))

    models = {"mnist": model("mnist", states, labels or {})}
    return Catalog({**models, **{name: model(name, {1: State.AVAILABLE}, {}) for name in also}})


@dataclass
class Fixed:
    """The pictures that admission looks at; a test replaces them as a gateway's snapshot does."""

    rights: Rights = field(default_factory=lambda: Rights({"cli_1": client(), "cli_2": client("cli_2")}))
    catalog: Catalog = field(default_factory=lambda: catalog({1: State.AVAILABLE, 2: State.AVAILABLE}))
    fresh: bool = True
    now: int = NOW * 1000

    def require_fresh(self) -> None:
        if not self.fresh:
            raise RightsUnavailable("rights are unread", retry_after_seconds=1)

    def now_ms(self) -> int:
        return self.now


class Gate:
    """An admission with its collaborators."""

    def __init__(self) -> None:
        keys = FixedKeys(signing_key())
        self.clock = Clock()
        self.snapshot = Fixed()
        self.verifier = CountingVerifier(keys, issuer="sluice", audience="sluice", max_seconds=900, clock=self.clock)
        self.issuer = Issuer(keys, issuer="sluice", audience="sluice", seconds=900, clock=self.clock)
        self.admission = Admission(self.verifier, self.snapshot)

    def token(self, client_id: str = "cli_1", *scopes: Scope) -> str:
        return self.issuer.issue(client_id, scopes or {Scope.PREDICT, Scope.JOBS})[0]

    def caller(self, token: str, query: bytes = b"") -> Caller:
        return self.admission.caller(sent(token), query)

    def with_grants(self, *specs: GrantSpec) -> Caller:
        """Gives the client exactly these grants and returns it as a caller."""
        named = [spec for spec in specs if not is_pattern(spec.model)]
        patterns = tuple(spec for spec in specs if is_pattern(spec.model))
        self.snapshot.rights = Rights({"cli_1": client(grants=granting(*named), patterns=patterns)})
        return self.caller(self.token())


def sent(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"localhost"), (b"authorization", b"Bearer " + token.encode()), (b"accept", b"*/*")]
