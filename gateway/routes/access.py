"""Why a client may or may not: the explanation of access, for administrators of clients."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from auth.errors import ClientNotFound
from auth.grants import HIGHEST_VERSION, Action
from auth.scopes import Scope
from gateway.access import Asked, Explanation, explain
from gateway.admission import Caller
from gateway.dependencies import Require, TokenFirst, parts
from gateway.grant_bodies import NAME_PATTERN, Name
from model_store.errors import SluiceError

router = APIRouter(prefix="/admin/clients", tags=["Clients"], route_class=TokenFirst)

Admin = Annotated[Caller, Depends(Require(Scope.CLIENTS_ADMIN))]
ClientId = Annotated[str, Path(description="The client's id: `cli_…`.", examples=["cli_4mZQhVYwW0qK7bN2sT9xLd3R"])]

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such client."}}


class QuestionAmbiguous(SluiceError):
    status = 422
    code = "question_ambiguous"


class GrantShown(BaseModel):
    """The stored grant that decided."""

    id: int
    text: str


class Access(BaseModel):
    """What a token of the client with all of its scopes would be answered now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "client_id": "cli_4mZQhVYwW0qK7bN2sT9xLd3R",
                    "verb": "predict",
                    "model": "mnist",
                    "version": None,
                    "label": "stable",
                    "allowed": True,
                    "rule": "grant 17: predict, submit, metadata on mnist label stable",
                    "grant": {"id": 17, "text": "predict, submit, metadata on mnist label stable"},
                    "resolved_version": 3,
                }
            ]
        }
    )

    client_id: str
    verb: Action
    model: str
    version: int | None
    label: str | None
    allowed: bool
    rule: str = Field(
        description=(
            "What decided: a stored grant, the scope or role that stands for one, or why not: `no grant`,"
            " `grant expired at …`, `client disabled`, `scope missing: …`, or what is not there."
        )
    )
    grant: GrantShown | None = Field(description="The stored grant, where one decided, be it that it expired.")
    resolved_version: int | None = Field(description="The version that is meant; null where there is none.")


class Question(BaseModel):
    """What is asked. A name that is not known is refused: left out, it would be answered for something else."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(pattern=NAME_PATTERN, description="The model's name.", examples=["mnist"])]
    verb: Annotated[Action, Field(description="What the client would do.", examples=["predict"])] = Action.PREDICT
    version: Annotated[int | None, Field(ge=1, le=HIGHEST_VERSION)] = None
    label: Name | None = None


@router.get(
    "/{client_id}/access",
    summary="Explain a client's access",
    description=(
        "Decided as a request is, from the same picture of rights, which is read anew for it. Without `version` and"
        " `label` the bare name is meant, or for `upload`, `label` and `retire` the model as a whole."
    ),
    responses=NOT_FOUND,
)
async def explain_access(
    request: Request,
    admin: Admin,  # noqa: ARG001 - asking for it is the check
    client_id: ClientId,
    question: Annotated[Question, Query()],
) -> Access:
    if question.version is not None and question.label is not None:
        raise QuestionAmbiguous("a request names a version or a label, not both")
    snapshot = parts(request).snapshot
    # What another gateway changed a moment ago counts: that is why somebody asks.
    await run_in_threadpool(snapshot.refresh)
    rights = snapshot.rights.clients.get(client_id)
    if rights is None:
        raise ClientNotFound("there is no client of this id; its name is no id")
    asked = Asked(question.verb, question.model, question.version, question.label)
    return _shown(client_id, asked, explain(snapshot.catalog, rights, asked, snapshot.now_ms()))


def _shown(client_id: str, asked: Asked, found: Explanation) -> Access:
    stored = None if found.grant is None or found.grant.id is None else found.grant
    return Access(
        client_id=client_id,
        verb=Action(asked.action),
        model=asked.model,
        version=asked.version,
        label=asked.label,
        allowed=found.allowed,
        rule=found.rule,
        grant=None if stored is None or stored.id is None else GrantShown(id=stored.id, text=stored.text),
        resolved_version=found.version,
    )
