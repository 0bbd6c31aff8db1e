"""Content codings: what is packed is unpacked under a limit, and answers are packed for those who asked."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
import zlib
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.content_codings import INLINE_BYTES, INLINE_PACKED_BYTES, packed, unpacked, wanted_coding
from gateway.errors import ContentCodingUnknown, RequestTooLarge
from tests.open_inference_kit import HEAD_LENGTH, answered, binary_request
from tests.processes import Cluster
from workers.errors import InputInvalid

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}
LIMIT = 3 * INLINE_BYTES


def unpack(data: bytes, coding: str, limit: int = LIMIT) -> bytes:
    return asyncio.run(unpacked(data, coding.encode(), limit))


@given(
    st.sampled_from(sorted(PACKERS)),
    st.one_of(st.binary(max_size=2000), st.integers(INLINE_BYTES - 2, LIMIT).map(bytes)),
)
def test_what_was_packed_comes_back_whole(coding: str, body: bytes):
    assert unpack(PACKERS[coding](body), coding) == body


@pytest.mark.parametrize("coding", sorted(PACKERS))
@pytest.mark.parametrize("limit", [100, INLINE_BYTES - 1, INLINE_BYTES, LIMIT])
def test_one_byte_over_the_limit_is_refused_and_no_more_is_unpacked(coding: str, limit: int):
    assert unpack(PACKERS[coding](bytes(limit)), coding, limit) == bytes(limit)
    for size in (limit + 1, 40 * limit):
        with pytest.raises(RequestTooLarge):
            unpack(PACKERS[coding](bytes(size)), coding, limit)


@pytest.mark.parametrize(("size", "inline"), [(INLINE_PACKED_BYTES - 100, True), (INLINE_PACKED_BYTES, False)])
def test_what_is_long_before_it_is_unpacked_does_not_hold_up_the_event_loop(size: int, inline: bool):
    """Blocks that unpack to nothing: the limit of what comes out would never be met."""
    nothing = b"\x78\x9c" + b"\0\0\0\xff\xff" * (size // 5) + b"\1\0\0\xff\xff\0\0\0\1"

    async def turns_of_others() -> int:
        turns: list[int] = []
        asyncio.get_running_loop().call_soon(turns.append, 1)
        assert await unpacked(nothing, b"deflate", LIMIT) == b""
        return len(turns)

    assert asyncio.run(turns_of_others()) == (0 if inline else 1)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "cut off"),
        (b"not packed", "is not gzip"),
        (gzip.compress(b"{}")[:-1], "cut off"),
        (gzip.compress(b"{}") + b"x", "1 bytes follow"),
        (gzip.compress(b"{}") + gzip.compress(b"{}"), "bytes follow"),
        (gzip.compress(bytes(100))[:-5] + b"\0\0\0\0\0", "is not gzip"),
        (zlib.compress(b"{}"), "is not gzip"),
        (gzip.compress(secrets.token_bytes(LIMIT))[: -LIMIT // 2], "cut off"),
    ],
    ids=["nothing", "text", "short", "longer", "twice", "damaged", "deflate", "half"],
)
def test_what_is_not_in_the_format_is_refused(data: bytes, text: str):
    with pytest.raises(InputInvalid, match=text):
        unpack(data, "gzip")


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "gzip,deflate", "", "identity;q=1"])
def test_codings_that_are_not_known_are_refused(coding: str):
    with pytest.raises(ContentCodingUnknown):
        unpack(b"", coding)


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", b"gzip"),
        ("deflate", b"deflate"),
        ("gzip, deflate, br, zstd", b"gzip"),
        ("gzip;q=0.5, deflate", b"deflate"),
        ("GZIP ; Q=0.4", b"gzip"),
        ("*", b"gzip"),
        ("*, gzip;q=0", b"deflate"),
        ("identity, gzip;q=0.5", None),
        ("gzip;q=0", None),
        ("br", None),
        ("identity", None),
        ("", None),
        ("gzip;q=2", None),
        ("\xff, ;,=", None),
    ],
)
def test_an_answer_gets_the_coding_that_its_caller_likes_best(accepted: str, coding: bytes | None):
    assert wanted_coding([(b"accept-encoding", accepted.encode("latin-1"))]) == coding


def test_several_headers_are_one_list_and_none_asks_for_nothing():
    assert wanted_coding([(b"accept-encoding", b"br"), (b"accept-encoding", b"deflate")]) == b"deflate"
    assert wanted_coding([(b"accept", b"gzip")]) is None


def test_what_grows_hardly_smaller_is_sent_as_it_is():
    noise = secrets.token_bytes(INLINE_BYTES)
    assert asyncio.run(packed(noise, [(b"accept-encoding", b"gzip")])) == (noise, [])


@pytest.fixture(scope="module")
def plain(caller: httpx.Client, serving: Cluster) -> Iterator[httpx.Client]:
    """The caller, who asks for no coding."""
    headers = {"authorization": caller.headers["authorization"], "accept-encoding": "identity"}
    with httpx.Client(base_url=serving.gateways[0], headers=headers, timeout=30) as client:
        yield client


BODY = json.dumps({"instances": [[1, 2]]}).encode()


@pytest.mark.parametrize("coding", sorted(PACKERS))
@pytest.mark.parametrize("verb", ["predict", "submit"])
def test_every_prediction_takes_packed_bodies(plain: httpx.Client, verb: str, coding: str):
    address, headers = f"/v1/models/double:{verb}", {"content-encoding": coding}
    found = plain.post(address, content=PACKERS[coding](BODY), headers=headers)
    assert found.status_code == (200 if verb == "predict" else 202), found.text


def test_the_length_of_the_json_counts_before_packing(plain: httpx.Client):
    body, head = binary_request({"x": np.ones((2, 2), np.float32)}, parameters={"binary_data_output": True})
    headers = {HEAD_LENGTH: str(head), "content-encoding": "deflate"}
    found = plain.post("/v2/models/double/infer", content=zlib.compress(body), headers=headers)
    assert answered(found).outputs["y"].tolist() == [[2, 2], [2, 2]]


def test_a_bomb_is_refused_by_the_limit_of_what_it_unpacks_to(plain: httpx.Client):
    bomb = gzip.compress(bytes(64 * 1024**2))
    refused = plain.post("/v1/models/double:predict", content=bomb, headers={"content-encoding": "gzip"})
    assert (refused.status_code, "when it is unpacked" in refused.json()["error"]) == (413, True)
    assert plain.post("/v1/models/double:predict", content=BODY).status_code == 200


@pytest.mark.parametrize("coding", ["br", "gzip, gzip"])
def test_a_refusal_names_the_codings_that_would_be_taken(plain: httpx.Client, coding: str):
    refused = plain.post("/v2/models/double/infer", content=BODY, headers={"content-encoding": coding})
    assert refused.status_code == 415
    assert refused.headers["accept-encoding"] == "gzip, deflate"
    elsewhere = plain.post("/v2/repository/index", content=gzip.compress(b"{}"), headers={"content-encoding": "gzip"})
    assert (elsewhere.status_code, elsewhere.headers["accept-encoding"]) == (415, "identity")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_large_answer_is_packed_for_who_asks(plain: httpx.Client, coding: str):
    rows = [[number, number + 0.5] for number in range(1000)]
    body = {"instances": rows * 8}
    asked = plain.post("/v1/models/double:predict", json=body, headers={"accept-encoding": coding})
    assert (asked.headers["content-encoding"], asked.headers["vary"]) == (coding, "accept-encoding")
    assert int(asked.headers["content-length"]) < len(asked.content) // 2
    as_it_is = plain.post("/v1/models/double:predict", json=body)
    assert "content-encoding" not in as_it_is.headers
    assert asked.json() == as_it_is.json()
    small = plain.post("/v1/models/double:predict", content=BODY, headers={"accept-encoding": coding})
    assert "content-encoding" not in small.headers
