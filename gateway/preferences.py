"""The Prefer header (RFC 7240): does the caller want a job, and how long will it wait for its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Preferences:
    """`applied` is the value for Preference-Applied: nothing where nobody said what is done all the same."""

    respond_async: bool = False
    wait_seconds: float = 0.0
    wait_given: bool = False
    stated: bool = True

    @property
    def asynchronous(self) -> bool:
        """Either preference makes the request a job from the start."""
        return self.respond_async or self.wait_given

    @property
    def applied(self) -> bytes:
        if not self.stated:
            return b""
        names = ["respond-async"] if self.respond_async else []
        if self.wait_given:
            names.append(f"wait={self.wait_seconds:g}")
        return ", ".join(names).encode()


NONE = Preferences()


def waiting(preferences: Preferences, seconds: float) -> Preferences:
    """The same, or to wait so long where the caller said nothing of a job."""
    if preferences.asynchronous:
        return preferences
    return Preferences(wait_seconds=seconds, wait_given=True, stated=False)


def read_preferences(headers: Sequence[tuple[bytes, bytes]]) -> Preferences:
    """The preferences of a request; unknown and malformed ones are ignored, as RFC 7240 section 2 asks."""
    values = [value for name, value in headers if name == b"prefer"]
    if not values:
        return NONE
    respond_async, wait = False, None
    for token in b",".join(values).decode("latin-1").split(","):
        name, _, value = token.partition(";")[0].strip().partition("=")
        if name.strip().lower() == "respond-async":
            respond_async = True
        elif name.strip().lower() == "wait" and value.strip().strip('"').isdecimal():
            # The first of several counts (RFC 7240, section 2).
            wait = float(value.strip().strip('"')[:6]) if wait is None else wait
    return Preferences(respond_async, min(wait or 0.0, LONGEST_WAIT_SECONDS), wait is not None)
