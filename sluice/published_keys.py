"""Public keys that a gateway publishes as a JWK Set: from a copy of them, or from the gateway itself."""

from __future__ import annotations

import json
from pathlib import Path

from sluice.answers import Json, Unreachable
from sluice.failures import CommandFailed

TIMEOUT_SECONDS = 10


def published_keys(copy: Path | None, url: str | None, path: str) -> Json:
    """The JWK Set in a file, or under `path` of the gateway; exactly one of both is to be given.

    Raises CommandFailed, Unreachable.
    """
    if copy is not None and url is None:
        return _read(copy)
    if url is not None and copy is None:
        return _fetch(url, path)
    raise CommandFailed("say whose keys verify it: --keys FILE, or --url of the gateway")


def _read(path: Path) -> Json:
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CommandFailed(f"{path} is not JSON") from error
    if not isinstance(found, dict):
        raise CommandFailed(f"{path} is no JWK Set")
    return found


def _fetch(url: str, path: str) -> Json:
    # Here, so that other commands need not wait for the HTTP client.
    import httpx

    from sluice.peers import trusted

    try:
        answer = httpx.get(url.rstrip("/") + path, timeout=TIMEOUT_SECONDS, verify=trusted()).raise_for_status()
        found = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise Unreachable(f"{url} did not give its keys: {error}") from error
    if not isinstance(found, dict):
        raise Unreachable(f"{url} did not give a JWK Set")
    return found
