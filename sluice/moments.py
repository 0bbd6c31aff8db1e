"""Moments as somebody types them."""

from __future__ import annotations

from datetime import UTC, datetime

import typer


def read_moment(text: str) -> datetime:
    """A date or a time by RFC 3339; without a zone it is UTC. Raises BadParameter."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text} is no time such as 2026-12-31, or 2026-12-31T23:00:00Z") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
