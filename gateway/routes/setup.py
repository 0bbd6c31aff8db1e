"""What somebody does who cannot sign in yet: making the first administrator, choosing a password; by one-time token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from auth import one_time_tokens, people
from auth.errors import PersonNotFound
from auth.one_time_tokens import Purpose
from auth.people_errors import AdministratorExists, OneTimeTokenInvalid
from auth.roles import Role
from gateway.audit_trail import note
from gateway.dependencies import address_of, parts
from gateway.routes.people import PersonShown, shown_person
from gateway.session_views import FORBID, NO_STORE, Password, Writing
from gateway.strict_bodies import StrictRoute
from model_store.database import transaction
from model_store.registry import check_name

router = APIRouter(prefix="/admin", tags=["Sessions"], route_class=StrictRoute)

TOKEN_REFUSALS: dict[int | str, dict[str, Any]] = {
    403: {"description": "The token is unknown, was used, or has expired."},
    422: {"description": "The password is too short or too long, or a field is wrong."},
    429: {"description": "Too many wrong tokens from this address; `Retry-After` says how long to wait."},
    503: {"description": "Too many passwords are being hashed, or the database is away."},
}


class FirstAdministrator(BaseModel):
    """The token that `sluice admin setup-token` printed, and who the first administrator will be."""

    model_config = FORBID

    token: str = Field(max_length=128)
    name: str = Field(max_length=256, examples=["ada"])
    password: Password = Field(description="12 to 256 characters, none of them a control character.")


class ChosenPassword(BaseModel):
    """The token that an administrator handed over, and the password."""

    model_config = FORBID

    token: str = Field(max_length=128)
    password: Password = Field(description="12 to 256 characters, none of them a control character.")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A token that was good a moment ago, and the hash of the password that came with it."""

    token: str = field(repr=False)
    password_hash: str = field(repr=False)
    name: str = ""


async def prepare_setup(request: Request, body: FirstAdministrator) -> Prepared:
    check_name(body.name, "person")
    return await _prepared(request, Purpose.SETUP, body.token, body.password, body.name)


async def prepare_password(request: Request, body: ChosenPassword) -> Prepared:
    return await _prepared(request, Purpose.PASSWORD, body.token, body.password)


@router.post(
    "/setup",
    status_code=201,
    summary="Make the first administrator",
    description="Works once, and only as long as there is no administrator. There is no default name or password.",
    responses={**TOKEN_REFUSALS, 409: {"description": "There is an administrator already, or the name is taken."}},
)
def set_up(
    request: Request, response: Response, prepared: Annotated[Prepared, Depends(prepare_setup)], session: Writing
) -> PersonShown:
    one_time_tokens.spend(session, prepared.token, Purpose.SETUP)
    if people.administrator_exists(session):
        raise AdministratorExists
    person = people.create(session, prepared.name, prepared.password_hash, Role.ADMIN)
    note(request, identity=person.id, name=person.name, role=person.role)
    response.headers.update({**NO_STORE, "location": f"/admin/people/{person.id}"})
    return shown_person(person)


@router.post(
    "/password",
    status_code=204,
    summary="Choose a password with a one-time token",
    description="The password so far, all sessions and all tokens of the person end. A second factor stays.",
    responses=TOKEN_REFUSALS,
)
def choose_password(
    request: Request, prepared: Annotated[Prepared, Depends(prepare_password)], session: Writing
) -> None:
    person_id = one_time_tokens.spend(session, prepared.token, Purpose.PASSWORD)
    try:
        person = people.get(session, person_id or "")
    except PersonNotFound:
        raise OneTimeTokenInvalid from None
    note(request, identity=person.id, name=person.name)
    people.set_password(session, person, prepared.password_hash)


async def _prepared(request: Request, purpose: Purpose, token: str, password: str, name: str = "") -> Prepared:
    found = parts(request)
    found.people.cookies.require_own_page(request)
    hashed = await found.people.places.run(_hash_for, request, purpose, token, password)
    return Prepared(token, hashed, name)


def _hash_for(request: Request, purpose: Purpose, token: str, password: str) -> str:
    # The token comes first: no stranger makes this machine hash passwords.
    found, address = parts(request), address_of(request)
    # With a blank in it, it is nobody's name.
    counted = f"token for {purpose}"
    found.failures.require_few(address, counted)
    try:
        with transaction(found.sessions, write=False) as session:
            one_time_tokens.look_up(session, token, purpose)
    except OneTimeTokenInvalid:
        found.failures.count(address, counted)
        raise
    return found.people.passwords.hash(password)
