"""Administration of people: who may sign in, in which role; passwords stay their own."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from auth import one_time_tokens, people, sessions
from auth.one_time_tokens import Purpose
from auth.people_tables import Person
from auth.roles import Role
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import Require, TokenFirst, parts
from gateway.routes.sessions import SessionList, session_list
from gateway.session_views import FORBID, NO_STORE, Reading, Writing, moment

log = logging.getLogger(__name__)

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
EXAMPLE: dict[str, Any] = {
    "id": "usr_4mZQhVYwW0qK7bN2sT9xLd3R",
    "name": "ada",
    "role": "operator",
    "disabled": False,
    "has_password": True,
    "has_second_factor": True,
    "created_at": "2026-11-22T13:10:00.123000Z",
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such person."}}
LAST: dict[int | str, dict[str, Any]] = {409: {"description": "This is the last administrator who can sign in."}}

router = APIRouter(prefix="/admin/people", tags=["People"], route_class=TokenFirst)

Admin = Annotated[Caller, Depends(Require(Scope.CLIENTS_ADMIN))]
PersonId = Annotated[str, Path(description="The person's id: `usr_…`.", examples=[EXAMPLE["id"]])]


class NewPerson(BaseModel):
    """Somebody to add. They choose a password themselves, with the token that the answer holds."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "ada", "role": "operator"}]})

    name: str = Field(pattern=NAME_PATTERN, description="Unique among people; to sign in with.")
    role: Role


class PersonChange(BaseModel):
    """What is to change; what is left out stays."""

    model_config = FORBID

    role: Role | None = None
    disabled: StrictBool | None = None


class PersonShown(BaseModel):
    """A person as administrators see them."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: str
    name: str
    role: Role
    disabled: bool
    has_password: bool = Field(description="Whether they have chosen one yet.")
    has_second_factor: bool
    created_at: datetime


class PasswordToken(BaseModel):
    """Good for one `POST /admin/password`, shown this once: to be handed over on a way that you trust."""

    token: str
    expires_at: datetime


class PersonWithToken(PersonShown):
    """A new person, with the token for choosing a password."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **EXAMPLE,
                    "has_password": False,
                    "has_second_factor": False,
                    "password_token": {"token": "slo_…", "expires_at": "2026-11-23T13:10:00Z"},
                }
            ]
        }
    )

    password_token: PasswordToken


class PeoplePage(BaseModel):
    """A page of the list; `next_page_token` is null on the last one."""

    people: list[PersonShown]
    next_page_token: str | None


@router.post(
    "",
    status_code=201,
    summary="Add a person",
    description="The answer holds a token with which they choose their password; it is good for a day.",
    responses={409: {"description": "The name is taken."}},
)
def create_person(
    request: Request, response: Response, admin: Admin, session: Writing, body: NewPerson
) -> PersonWithToken:
    person = people.create(session, body.name, role=body.role)
    note(request, person_id=person.id, person=person.name, role=person.role)
    token, expires_at = one_time_tokens.issue(session, Purpose.PASSWORD, person.id)
    log.info("person %s created by %s", person.id, admin.client_id)
    response.headers.update({**NO_STORE, "location": f"/admin/people/{person.id}"})
    shown = shown_person(person).model_dump()
    return PersonWithToken(**shown, password_token=PasswordToken(token=token, expires_at=moment(expires_at)))


@router.get("", summary="List people", description="In the order of their names.")
def list_people(
    admin: Admin,  # noqa: ARG001 - asking for it is the check
    session: Reading,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    page_token: Annotated[
        str | None, Query(pattern=NAME_PATTERN, description="`next_page_token` of the page before.")
    ] = None,
) -> PeoplePage:
    # One more than asked for tells whether there is a next page.
    found = people.page(session, after=page_token or "", limit=limit + 1)
    shown = [shown_person(person) for person in found[:limit]]
    return PeoplePage(people=shown, next_page_token=shown[-1].name if len(found) > limit else None)


@router.get("/{person_id}", summary="Show a person", responses=NOT_FOUND)
def show_person(admin: Admin, session: Reading, person_id: PersonId) -> PersonShown:  # noqa: ARG001 - as above
    return shown_person(people.get(session, person_id))


@router.put(
    "/{person_id}",
    summary="Change a person's role, disable or enable them",
    description="Their sessions and tokens end: every gateway refuses them within a second.",
    responses={**NOT_FOUND, **LAST},
)
def change_person(
    request: Request, admin: Admin, session: Writing, person_id: PersonId, body: PersonChange
) -> PersonShown:
    person = people.get(session, person_id)
    note(request, person=person.name, role=body.role, disabled=body.disabled)
    if body.role is not None:
        people.set_role(session, person, body.role)
    if body.disabled is not None:
        people.set_disabled(session, person, body.disabled)
    log.info("person %s changed by %s", person_id, admin.client_id)
    return shown_person(person)


@router.delete(
    "/{person_id}",
    status_code=204,
    summary="Delete a person",
    description="Their sessions and tokens end.",
    responses={**NOT_FOUND, **LAST},
)
def delete_person(request: Request, admin: Admin, session: Writing, person_id: PersonId) -> None:
    person = people.get(session, person_id)
    note(request, person=person.name)
    people.delete(session, person)
    log.info("person %s deleted by %s", person_id, admin.client_id)


@router.post(
    "/{person_id}/password-token",
    status_code=201,
    summary="Let a person choose a new password",
    description=(
        "A token for somebody who forgot theirs; it is good for a day, and earlier ones are void. The password so far "
        "stays good until then."
    ),
    responses=NOT_FOUND,
)
def create_password_token(response: Response, admin: Admin, session: Writing, person_id: PersonId) -> PasswordToken:
    token, expires_at = one_time_tokens.issue(session, Purpose.PASSWORD, people.get(session, person_id).id)
    log.info("token for the password of %s made by %s", person_id, admin.client_id)
    response.headers.update(NO_STORE)
    return PasswordToken(token=token, expires_at=moment(expires_at))


@router.delete(
    "/{person_id}/second-factor",
    status_code=204,
    summary="Remove a person's second factor",
    description="For somebody who lost it; their sessions and tokens end.",
    responses=NOT_FOUND,
)
def clear_second_factor(admin: Admin, session: Writing, person_id: PersonId) -> None:
    people.remove_second_factor(session, people.get(session, person_id))
    log.info("second factor of %s removed by %s", person_id, admin.client_id)


@router.get("/{person_id}/sessions", summary="List a person's sessions", responses=NOT_FOUND)
def list_sessions_of(
    request: Request,
    admin: Admin,  # noqa: ARG001 - as above
    session: Reading,
    person_id: PersonId,
) -> SessionList:
    lifetimes = parts(request).people.sessions.lifetimes
    return session_list(sessions.of_person(session, people.get(session, person_id).id, lifetimes))


@router.delete(
    "/{person_id}/sessions",
    status_code=204,
    summary="End a person's sessions and tokens",
    description="Every gateway refuses them within a second.",
    responses=NOT_FOUND,
)
def end_sessions_of(admin: Admin, session: Writing, person_id: PersonId) -> None:
    people.end_everything(session, people.get(session, person_id))
    log.info("sessions of %s ended by %s", person_id, admin.client_id)


def shown_person(person: Person) -> PersonShown:
    """The row without what is secret."""
    return PersonShown(
        id=person.id,
        name=person.name,
        role=Role(person.role),
        disabled=person.disabled,
        has_password=person.password_hash != people.NO_PASSWORD,
        has_second_factor=person.second_factor is not None,
        created_at=moment(person.created_at),
    )
