"""Moments as callers write them: RFC 3339 with a zone. pydantic alone would take any number for seconds since 1970."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from pydantic import AwareDatetime, BeforeValidator

_BEGINNING = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")


def _written(value: object) -> object:
    if isinstance(value, int | float) or (isinstance(value, str) and not _BEGINNING.match(value)):
        raise ValueError("a moment is written as in RFC 3339: 2026-01-02T03:04:05Z")
    return value


Moment: TypeAlias = Annotated[AwareDatetime, BeforeValidator(_written)]
