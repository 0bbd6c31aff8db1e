"""The settings of this process, read from its environment; what is wrong with them is said in words."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from model_store.settings import Settings
from sluice.failures import CommandFailed

S = TypeVar("S", bound=Settings)


def settings_of(kind: type[S]) -> S:
    """The settings from the environment; raises CommandFailed, which names what is wrong without its value."""
    try:
        return kind()
    except ValidationError as error:
        wrong = "\n  ".join(_told(part) for part in error.errors(include_input=False))
        raise CommandFailed(f"settings are missing or wrong:\n  {wrong}") from error
    except OSError as error:
        raise CommandFailed(f"a file that a setting names cannot be read: {error}") from error


def _told(part: ErrorDetails) -> str:
    # What is wrong with several settings together has no place; its text names them.
    setting = f"SLUICE_{str(part['loc'][0]).upper()}: " if part["loc"] else ""
    if part["type"] in ("too_short", "string_too_short"):
        return f"{setting}at least {part['ctx']['min_length']} characters are needed"
    return setting + part["msg"].removeprefix("Value error, ")
