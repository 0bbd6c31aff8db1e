"""Ids of clients where a name could be meant: who sends one is told that the id is wanted."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

PATTERN = r"^cli_[A-Za-z0-9_-]{1,60}$"


def _an_id(text: str) -> str:
    if re.fullmatch(PATTERN, text) is None:
        raise ValueError("the client's id is wanted (cli_…), not its name: GET /admin/clients lists both")
    return text


ClientId: TypeAlias = Annotated[str, AfterValidator(_an_id), Field(json_schema_extra={"pattern": PATTERN})]
