"""The settings of this process, read from its environment; what is wrong with them is said in words."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from model_store.settings import Settings
from sluice.failures import CommandFailed

S = TypeVar("S", bound=Settings)


def settings_of(kind: type[S]) -> S:
    """The settings from the environment; raises CommandFailed, which names what is wrong without its value."""
    try:
        return kind()
    except ValidationError as error:
        wrong = [f"SLUICE_{str(part['loc'][0]).upper()}: {part['msg']}" for part in error.errors(include_input=False)]
        raise CommandFailed("settings are missing or wrong:\n  " + "\n  ".join(wrong)) from error
    except OSError as error:
        raise CommandFailed(f"a file that a setting names cannot be read: {error}") from error
