"""M66 over HTTP: a SavedModel is a program, and no format that is taken."""

from __future__ import annotations

import gzip
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from auth.scopes import Scope
from tests.conftest import RedisServer
from tests.hostile.bait import Bait
from tests.hostile.saved_models import OPERATIONS, saved_model, tarred
from tests.hostile.zips import Entry, pack
from tests.live_gateway import live_gateway, refused, upload


@pytest.fixture(scope="module")
def admin(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = {"redis_url": redis_server.url, "key_prefix": f"t{secrets.token_hex(4)}"}
    with (
        live_gateway(tmp_path_factory.mktemp("gateway"), **settings) as gateway,
        gateway.client([Scope.MODELS_WRITE, Scope.CLIENTS_ADMIN]) as client,
    ):
        yield client


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "bare": lambda content: content,
    "tar": tarred,
    "tar.gz": lambda content: gzip.compress(tarred(content)),
    "zip": lambda content: pack([Entry("model/saved_model.pb", content)]),
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_saved_model_is_not_taken(admin: httpx.Client, tmp_path: Path, operation: str, packing: str):
    bait = Bait(tmp_path, tmp_path / "mark", 1)
    answer = upload(admin, f"m{secrets.token_hex(6)}", PACKINGS[packing](saved_model(operation, bait)))
    assert refused(answer, 415, "unsupported_format")
    assert ("SLUICE_UPLOAD_FORMATS" in answer.json()["detail"]) == (packing in ("tar.gz", "zip"))
    assert not bait.mark.exists()
