"""Webhooks and their deliveries as clients and administrators see them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt
from pydantic.config import JsonDict

from gateway.job_results import moment
from workers.webhooks.deliveries import DeliveryState
from workers.webhooks.endpoints import EVENTS
from workers.webhooks.tables import WebhookDelivery, WebhookEndpoint
from workers.webhooks.urls import URL_CHARACTERS

DESCRIPTION_CHARACTERS = 256

Url = Annotated[str, Field(min_length=1, max_length=URL_CHARACTERS, examples=["https://hooks.example.com/sluice"])]
Event = Literal["job.succeeded", "job.failed", "job.canceled", "job.expired"]
# What a terminal or a page would act upon is no part of a description.
Description = Annotated[str, Field(max_length=DESCRIPTION_CHARACTERS, pattern=r"^[^\x00-\x1f\x7f]*$")]

_SHOWN: JsonDict = {
    "id": "whe_4mZQhVYwW0qK7bN2",
    "url": "https://hooks.example.com/sluice",
    "events": ["job.failed", "job.succeeded"],
    "description": "the archive",
    "disabled": False,
    "disabled_reason": None,
    "failing_since": None,
    "created_at": "2026-11-22T13:10:00.123Z",
}
_DELIVERY: JsonDict = {
    "id": "msg_Zk0o3rVxQ1uYt5pWc8sLd2Ea_4mZQhVYwW0qK7bN2",
    "webhook": "whe_4mZQhVYwW0qK7bN2",
    "job": "Zk0o3rVxQ1uYt5pWc8sLd2Ea",
    "type": "job.succeeded",
    "url": "https://hooks.example.com/sluice",
    "state": "delivered",
    "attempts": [
        {"at": "2026-11-22T13:10:00.200Z", "milliseconds": 10_000, "status": None, "error": "timeout"},
        {"at": "2026-11-22T13:10:05.400Z", "milliseconds": 41, "status": 204, "error": None},
    ],
    "next_attempt_at": None,
    "created_at": "2026-11-22T13:10:00.123Z",
    "ended_at": "2026-11-22T13:10:05.441Z",
}


class NewWebhook(BaseModel):
    """An address to be told at."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"url": "https://hooks.example.com/sluice", "events": ["job.succeeded", "job.failed"]}]
        },
    )

    url: Url
    events: list[Event] = Field(default_factory=list, max_length=len(EVENTS), description="None is all of them.")
    description: Description = ""


class WebhookChange(BaseModel):
    """What is to be changed of a webhook; what is not given stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"disabled": True}]})

    url: Url | None = None
    events: list[Event] | None = Field(None, max_length=len(EVENTS), description="An empty list is all of them.")
    description: Description | None = None
    disabled: StrictBool | None = None


class WebhookSwitch(BaseModel):
    """Whether a webhook is told of anything."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"disabled": True}]})

    disabled: StrictBool


class Overlap(BaseModel):
    """How long the secret so far signs beside the new one."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap_seconds": 86400}]})

    overlap_seconds: StrictInt = Field(86_400, ge=0, le=7 * 86_400)


class WebhookShown(BaseModel):
    """An address that is told, without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SHOWN]})

    id: str
    url: str
    events: list[str] = Field(description="Of these it is told.")
    description: str
    disabled: bool
    disabled_reason: str | None = Field(
        description="`gone`: it answered 410; `failing`: it took nothing for five days; null where a person did it."
    )
    failing_since: str | None
    created_at: str

    @classmethod
    def of(cls, endpoint: WebhookEndpoint, **more: Any) -> WebhookShown:  # noqa: ANN401 - fields of a class below
        """The endpoint as it is shown."""
        return cls(
            id=endpoint.id,
            url=endpoint.url,
            events=endpoint.events.split() or sorted(EVENTS),
            description=endpoint.description,
            disabled=endpoint.disabled,
            disabled_reason=endpoint.disabled_reason,
            failing_since=moment(endpoint.failing_since),
            created_at=_written(endpoint.created_at),
            **more,
        )


class WebhookWithSecret(WebhookShown):
    """A webhook with its secret, which is shown this once."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SHOWN | {"secret": "whsec_…"}]})

    secret: str


class Webhooks(BaseModel):
    """All webhooks of a client, the oldest first."""

    webhooks: list[WebhookShown]


class SigningSecret(BaseModel):
    """What verifies signatures."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"key": "whsec_…"}]})

    key: str


class Attempt(BaseModel):
    """One attempt: when it ended, how long it took, and how the receiver answered."""

    at: str
    milliseconds: int | None = None
    status: int | None = None
    error: str | None = Field(
        None,
        description=(
            "`address`: webhooks do not go to what the name stands for; `connection`, `tls`, `timeout`; `answer`: no "
            "HTTP; `status`: not 2xx; or why nothing was sent."
        ),
    )


class Delivery(BaseModel):
    """One event on its way to one address."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DELIVERY]})

    id: str = Field(description="The field `webhook-id`, the same at each attempt.")
    webhook: str | None = Field(description="Null where the submit named the address.")
    job: str | None
    type: str
    url: str
    state: DeliveryState
    attempts: list[Attempt] = Field(description="The latest ones.")
    next_attempt_at: str | None
    created_at: str
    ended_at: str | None

    @classmethod
    def of(cls, delivery: WebhookDelivery) -> Delivery:
        """The delivery as it is shown."""
        attempts = [Attempt(**told | {"at": _written(told["at"])}) for told in json.loads(delivery.attempts)]
        return cls(
            id=delivery.id,
            webhook=None if delivery.target == delivery.client_id else delivery.target,
            job=delivery.job_id,
            type=delivery.type,
            url=delivery.url,
            state=DeliveryState(delivery.state),
            attempts=attempts,
            next_attempt_at=moment(delivery.next_at) if delivery.state == DeliveryState.WAITING else None,
            created_at=_written(delivery.created_at),
            ended_at=moment(delivery.ended_at),
        )


class DeliveriesPage(BaseModel):
    """A page of the log, the newest first; `next_page_token` is null on the last one."""

    deliveries: list[Delivery]
    next_page_token: str | None


def _written(milliseconds: int) -> str:
    return moment(milliseconds) or ""
