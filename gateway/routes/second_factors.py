"""Second factors: a person sets one up, confirms it with a code, and removes it; always with the password again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from auth import people
from auth.people_errors import CodeInvalid
from auth.sign_in import Checked, admit
from gateway.dependencies import parts
from gateway.session_views import FORBID, NO_STORE, REFUSALS, PasswordAgain, SessionShown, Who, Writing, begin, check
from gateway.strict_bodies import StrictRoute

router = APIRouter(prefix="/admin/session/second-factor", tags=["Sessions"], route_class=StrictRoute)


class OfferShown(BaseModel):
    """A secret for an app that shows codes (RFC 6238: SHA-1, 6 digits, 30 seconds)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"secret": "JBSWY3DPEHPK3PXP…", "uri": "otpauth://totp/Sluice:ada?secret=…&issuer=Sluice"}]
        }
    )

    secret: str = Field(description="To type into the app.")
    uri: str = Field(description="The same, for a QR code.")


class CodeBody(BaseModel):
    """A code that the app shows."""

    model_config = FORBID

    code: str = Field(max_length=64, examples=["492039"])


class RecoveryCodes(BaseModel):
    """Ten codes, each of which signs in once without the app; shown this once."""

    recovery_codes: list[str]
    session: SessionShown


async def check_again(request: Request, who: Who, body: PasswordAgain) -> Checked:
    return await check(request, who.caller.name, body.password, body.code)


Again = Annotated[Checked, Depends(check_again)]


@router.post(
    "",
    summary="Ask for a second factor",
    description=(
        "Answers with a secret, which counts once a code of it has come back by PUT. One that is set up already stays "
        "until then, and a code of it is needed."
    ),
    responses=REFUSALS,
)
def offer_second_factor(request: Request, response: Response, checked: Again, session: Writing) -> OfferShown:
    offer = parts(request).people.second_factor.offer(admit(session, checked))
    response.headers.update(NO_STORE)
    return OfferShown(secret=offer.secret, uri=offer.uri)


@router.put(
    "",
    summary="Confirm the second factor",
    description="From now on signing in needs a code. All other sessions and all tokens of the person end.",
    responses={
        409: {"description": "There is no secret to confirm: ask for one first."},
        422: {"description": "`code_invalid`: not the code of now."},
        429: {"description": "Too many wrong codes; `Retry-After` says how long to wait."},
    },
)
def confirm_second_factor(
    request: Request, response: Response, who: Who, session: Writing, body: CodeBody
) -> RecoveryCodes:
    found, person = parts(request), people.get(session, who.caller.client_id)
    # By the person, from wherever: a code has six digits, and whoever has the cookie alone would try them all. With a
    # blank in it, it is nobody's name.
    counted = f"second factor of {person.id}"
    found.failures.require_few("", counted)
    try:
        codes = found.people.second_factor.confirm(session, person, body.code)
    except CodeInvalid:
        found.failures.count("", counted)
        raise
    people.end_everything(session, person)
    return RecoveryCodes(recovery_codes=list(codes), session=begin(request, response, session, person))


@router.post(
    "/remove",
    summary="Remove the second factor",
    description="All sessions and tokens of the person end; this browser gets a new session.",
    responses=REFUSALS,
)
def remove_second_factor(request: Request, response: Response, checked: Again, session: Writing) -> SessionShown:
    person = admit(session, checked)
    people.remove_second_factor(session, person)
    return begin(request, response, session, person)
