"""Grants as the interface takes and shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from auth.grants import HIGHEST_VERSION, LEAST_WEIGHT, MOST_GRANTS, MOST_WEIGHT, USE, Action, GrantSpec
from auth.model_patterns import PATTERN
from gateway.moments import Moment

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Models = Annotated[str, Field(pattern=f"^{PATTERN.pattern}$")]


class GrantBody(BaseModel):
    """What a client may do with models: with one version, what a label points to, or all versions."""

    model_config = ConfigDict(extra="forbid")

    model: Models = Field(examples=["mnist"], description="A model's name, or a pattern of names: `team-a-*`, `*`.")
    version: StrictInt | None = Field(None, ge=1, le=HIGHEST_VERSION, description="This version only.")
    label: Name | None = Field(None, description="Whatever version this label points to.")
    actions: list[Action] = Field(
        default_factory=lambda: [action for action in Action if action in USE],
        min_length=1,
        max_length=len(Action),
        description=(
            "`predict`: predict and wait. `submit`: submit jobs. `metadata`: read status and signature. For"
            " administrators of some models, with the scope `models:write`: `upload` versions, move a `label`, `retire`"
            " and delete versions. Without it: the first three."
        ),
    )
    expires_at: Moment | None = Field(
        None,
        description="From this moment on, by the database's clock, it allows nothing; null: it lasts.",
        examples=["2099-12-31T23:00:00Z"],
    )

    weight: StrictFloat = Field(
        1.0,
        ge=LEAST_WEIGHT,
        le=MOST_WEIGHT,
        allow_inf_nan=False,
        description="By which the client shares the workers with others: 3 gets three times the turns of 1.",
    )

    def spec(self) -> GrantSpec:
        end = None if self.expires_at is None else _milliseconds(self.expires_at)
        return GrantSpec(self.model, self.version, self.label, frozenset(self.actions), end, self.weight)


class Grants(BaseModel):
    """All grants of a client."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "grants": [
                        {"model": "mnist", "actions": ["predict", "submit", "metadata"]},
                        {"model": "linear", "version": 1, "actions": ["predict"]},
                        {
                            "model": "team-a-*",
                            "actions": ["metadata", "upload", "label", "retire"],
                            "expires_at": "2099-12-31T23:00:00Z",
                        },
                    ]
                }
            ]
        },
    )

    grants: list[GrantBody] = Field(max_length=MOST_GRANTS)


def grants_shown(specs: Sequence[GrantSpec]) -> Grants:
    """Stored grants, as `PUT` would take them again."""
    return Grants(
        grants=[
            GrantBody(
                model=spec.model,
                version=spec.version,
                label=spec.label,
                actions=[action for action in Action if action in spec.actions],
                expires_at=None if spec.expires_at is None else datetime.fromtimestamp(spec.expires_at / 1000, UTC),
                weight=spec.weight,
            )
            for spec in specs
        ]
    )


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
