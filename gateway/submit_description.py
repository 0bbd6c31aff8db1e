"""The OpenAPI description of a submit's options, which come as headers."""

from __future__ import annotations

from typing import Any

from gateway.submit_options import KEY_CHARACTERS, MOST_ATTEMPTS, URL_CHARACTERS

Json = dict[str, Any]


def submit_options() -> list[Json]:
    """The headers that make a difference to a request that makes a job."""
    return [
        _header(
            "Idempotency-Key",
            "Of requests with the same key within 24 hours the first makes a job and the others are answered with it "
            "(draft-ietf-httpapi-idempotency-key-header). Quoted or bare.",
            {"type": "string", "minLength": 1, "maxLength": KEY_CHARACTERS},
            '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
        ),
        _header(
            "Sluice-Priority",
            "Interactive jobs run before bulk ones of all clients.",
            {"type": "string", "enum": ["interactive", "bulk"], "default": "bulk"},
            "interactive",
        ),
        _header(
            "Sluice-Deadline",
            "Seconds from now, or a moment (RFC 3339), after which the job does not begin any more. Never later than "
            "what the model's policy and the settings say.",
            {"type": "string"},
            "300",
        ),
        _header(
            "Sluice-Max-Attempts",
            "How often the job may be tried where machines fail under it; no more often than the model's policy says.",
            {"type": "integer", "minimum": 1, "maximum": MOST_ATTEMPTS, "default": 3},
            2,
        ),
        _header(
            "Sluice-Webhook",
            "An address that is told when the job has ended.",
            {"type": "string", "format": "uri", "maxLength": URL_CHARACTERS},
            "https://example.org/hooks/sluice",
        ),
    ]


def _header(name: str, description: str, schema: Json, example: object) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": schema, "example": example}
