"""Settings of how people sign in; only a gateway reads them."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from auth.roles import Role
from model_store.settings import Settings


class SecondFactorDemand(StrEnum):
    """Who must have a second factor."""

    OPTIONAL = "optional"
    ADMINS = "admins"
    EVERYBODY = "everybody"

    def of(self, role: str) -> bool:
        """Whether somebody in this role must have one."""
        return self is SecondFactorDemand.EVERYBODY or (self is SecondFactorDemand.ADMINS and role == Role.ADMIN)


class CookieKind(StrEnum):
    """Whether cookies are for https only."""

    AUTO = "auto"
    SECURE = "secure"
    PLAIN = "plain"


class PeopleSettings(Settings):
    """Second factors, and how long sessions last."""

    second_factor: SecondFactorDemand = Field(
        SecondFactorDemand.OPTIONAL,
        description=(
            "Who must have a second factor to sign in: `optional`, `admins` or `everybody`. Without one they can do "
            "nothing but set it up."
        ),
    )
    session_cookies: CookieKind = Field(
        CookieKind.AUTO,
        description=(
            "`secure`: sessions only over https, by cookies named `__Host-…`. `plain`: also over http. `auto`: plain "
            "for a gateway that listens on a loopback address without TLS and whose issuer is not `https://…`."
        ),
    )
    session_idle_seconds: int = Field(
        1800, ge=120, le=86_400, description="A session ends when nothing was asked for so long."
    )
    session_seconds: int = Field(43_200, ge=300, le=604_800, description="A session ends so long after signing in.")
