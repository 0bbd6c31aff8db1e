"""Every route of the application asks who is calling, unless it is public by design."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from auth.scopes import Scope
from gateway.app import create_app
from gateway.dependencies import PUBLIC, Reader, Require, SignedInPerson
from gateway.settings import GatewaySettings


def application(folder: Path) -> FastAPI:
    settings = GatewaySettings(
        database_url=f"sqlite:///{folder / 'sluice.db'}",
        store_dir=folder / "store",
        keys_dir=folder / "keys",
        client_secret_key="k" * 32,
        master_key="m" * 43,
    )
    return create_app(settings)


Guard = Require | Reader | SignedInPerson


def guards(dependant: Dependant | None) -> list[Guard]:
    if dependant is None:
        return []
    own = [dependant.call] if isinstance(dependant.call, Guard) else []
    return own + [guard for inner in dependant.dependencies for guard in guards(inner)]


def scopes(asked: list[Guard]) -> set[Scope]:
    return {guard.scope for guard in asked if not isinstance(guard, SignedInPerson)}


def guarded(app: FastAPI) -> dict[tuple[str, str], list[Guard]]:
    """The guards of every route, by method and path; also of those that are no routes of FastAPI."""
    return {
        (method, str(route.path)): guards(getattr(route, "dependant", None))
        for route in iter_route_contexts(app.routes)
        for method in (route.methods or {"ANY"})
    }


def test_every_route_asks_for_a_scope_or_is_public_by_design(tmp_path: Path):
    found = guarded(application(tmp_path))
    assert len(found) > 20
    assert ("POST", "/admin/clients") in found
    unguarded = {path for (_, path), asked in found.items() if not asked}
    assert unguarded == PUBLIC


def test_every_administrative_route_asks_for_an_administrative_scope(tmp_path: Path):
    administrative = {Scope.MODELS_READ, Scope.MODELS_WRITE, Scope.CLIENTS_ADMIN, Scope.AUDIT_READ}
    administrative |= {Scope.JOBS_ADMIN, Scope.JOBS_CONTENTS}
    for (method, path), asked in guarded(application(tmp_path)).items():
        if path.startswith("/admin/"):
            assert scopes(asked) <= administrative, path
        if path.startswith(("/admin/clients", "/admin/people")) and not path.endswith("/jobs"):
            assert scopes(asked) == {Scope.CLIENTS_ADMIN}, path
        if path.startswith("/admin/") and method not in {"GET", "HEAD"}:
            assert Scope.MODELS_READ not in scopes(asked), f"{method} {path}"


def test_every_scope_is_asked_for_somewhere(tmp_path: Path):
    asked = {scope for found in guarded(application(tmp_path)).values() for scope in scopes(found)}
    # The prediction paths, which ask for these, are answered in front of the router and tested with it.
    assert asked | {Scope.PREDICT, Scope.EXPLAIN} == set(Scope)
