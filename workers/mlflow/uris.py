"""What can be imported: a model in the registry by version or alias, a logged model, or a run's artifacts.

Nothing of a URI is an address: the server is the settings' own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from model_store.errors import SluiceError

URI_CHARACTERS = 512
# mlflow/utils/validation.py: an alias is a word of its own; names may have most characters.
_REGISTERED = re.compile(
    r"models:/(?P<name>[^/:@?#\\\x00-\x1f]{1,256})(?:/(?P<version>[1-9][0-9]{0,9})|@(?P<alias>[\w-]{1,255}))"
)
_LOGGED = re.compile(r"models:/(?P<model_id>m-[0-9a-f]{32})")
_RUN = re.compile(r"runs:/(?P<run_id>[0-9a-f]{32})/(?P<path>[A-Za-z0-9._ -]{1,100}(?:/[A-Za-z0-9._ -]{1,100}){0,8})")


class ImportUriInvalid(SluiceError):
    status = 422
    code = "import_uri_invalid"


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of a registered model, by its number or by an alias."""

    name: str
    version: str | None
    alias: str | None


@dataclass(frozen=True, slots=True)
class Logged:
    """A model that was logged, by MLflow's own id of it."""

    model_id: str


@dataclass(frozen=True, slots=True)
class OfRun:
    """What a run logged at a path."""

    run_id: str
    path: str


def parse(uri: str) -> Registered | Logged | OfRun:
    """Raises ImportUriInvalid."""
    short = uri if len(uri) <= URI_CHARACTERS else ""
    if found := _LOGGED.fullmatch(short):
        return Logged(found["model_id"])
    if found := _REGISTERED.fullmatch(short):
        return Registered(found["name"], found["version"], found["alias"])
    if (found := _RUN.fullmatch(short)) and not {".", ".."} & set(found["path"].split("/")):
        return OfRun(found["run_id"], found["path"])
    raise ImportUriInvalid("write models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID or runs:/RUN-ID/PATH")
