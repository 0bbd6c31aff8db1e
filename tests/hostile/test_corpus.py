"""Every hostile file through the whole preparation: refused with its own code and place, and nothing else happens."""

from __future__ import annotations

import base64
import marshal
import pickle
import socket
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.database import transaction
from model_store.tables import Version
from tests.hostile.archives import pickled
from tests.hostile.bait import Bait, Case
from tests.hostile.corpus import CASES, chosen
from tests.hostile.foreign import bytecode
from tests.hostile.listener import Listener
from tests.live_gateway import eventually
from tests.shop import Shop


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    opened = Listener()
    yield opened
    opened.close()


def stored(shop: Shop) -> set[Path]:
    return {path for path in shop.artifacts.root.rglob("*") if path.is_file()}


def versions(shop: Shop) -> dict[str, tuple[str, str]]:
    with transaction(shop.sessions) as session:
        return {row.model: (row.state, row.digest) for row in session.query(Version)}


@pytest.mark.parametrize("case", chosen(), ids=lambda case: case.slug)
def test_a_hostile_file_is_refused_with_its_reason_and_touches_nothing(
    case: Case, shop: Shop, listener: Listener, tmp_path: Path
):
    bait = Bait(tmp_path, tmp_path / "marks" / case.slug, listener.port)
    bait.mark.parent.mkdir()
    path = case.file(bait)
    blobs, others = stored(shop), versions(shop)

    ended = shop.prepare(path, **case.settings)

    assert (ended.state, ended.error_code) == ("END", case.code), ended.error_message
    assert case.place in (ended.error_message or "")
    assert [step["outcome"] for step in ended.report["steps"]][-1] == "refused"
    assert not bait.mark.exists()
    assert listener.calls == []
    assert list(shop.settings.scratch_dir.iterdir()) == []
    # The upload itself is kept, and nothing else was added, removed or changed.
    assert len(stored(shop) - blobs) <= 1
    assert blobs <= stored(shop)
    assert others.items() <= versions(shop).items()


def test_every_case_has_a_name_of_its_own():
    names = [case.slug for case in CASES]
    assert len(set(names)) == len(names)


def test_the_canary_would_notice_a_call():
    # On a listener of its own: so the silence of the other one means something.
    canary = Listener()
    socket.create_connection(("127.0.0.1", canary.port)).close()
    eventually(lambda: len(canary.calls) == 1)
    canary.close()


def test_the_payloads_of_the_corpus_would_make_their_marks(tmp_path: Path):
    bait = Bait(tmp_path, tmp_path / "mark", 1)
    code = bytecode(bait)["config"]
    assert isinstance(code, dict)
    types.FunctionType(marshal.loads(base64.b64decode(code["code"])), {})(1)  # noqa: S302 - our own
    assert bait.mark.exists()
    bait.mark.unlink()
    pickle.loads(pickled(bait))  # noqa: S301 - our own
    assert bait.mark.exists()
