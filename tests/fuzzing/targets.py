"""The readers of strangers' bytes, each as a function that only raises where a promise is broken."""

from __future__ import annotations

import contextlib
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from auth.errors import TokenInvalid
from auth.tokens import Verifier
from gateway.basic_credentials import CredentialsMalformed, read_basic
from gateway.errors import MOST_CHARACTERS, render
from model_store.errors import SluiceError
from model_store.signature import Signature, TensorSpec
from tests.forgery import HEADER, KEY, NOW, FixedKeys, encoded
from tests.hostile.bait import archive as archive_of
from tests.keras_archives import METADATA, dense, layer, sequential
from workers.errors import InputInvalid, UploadRefused
from workers.preparation import archive, budget, strict_json, structure
from workers.protocols import open_inference, tensorflow_serving
from workers.protocols.body import TEXT, Body, Dialect
from workers.protocols.contract import Contract

LIMIT = 1024**2
PATHS = ("/v1/models/a:predict", "/v2/models/a/infer", "/admin/models", "/oauth/token", "/")
CONTRACTS = tuple(
    Contract(f"m{number}", 1, Signature((spec,), (spec,)), 100)
    for number, spec in enumerate(
        (
            TensorSpec("x", "float32", (None, 2)),
            TensorSpec("x", "int8", (None, None)),
            TensorSpec("x", "string", (None,)),
            TensorSpec("x", "bool", (2, 2)),
            TensorSpec("x", "float16", (None, 2, 2)),
        )
    )
)
VERIFIER = Verifier(FixedKeys(KEY), issuer="sluice", audience="sluice", max_seconds=900, clock=lambda: NOW)


def read_json(data: bytes) -> None:
    """What is accepted is what the standard library reads."""
    with contextlib.suppress(UploadRefused):
        assert strict_json.parse(data, "x") == json.loads(data)


def read_archive(data: bytes) -> None:
    """What is accepted is what zipfile reads, member by member."""
    with tempfile.NamedTemporaryFile(prefix="sluice-fuzz-") as file:
        file.write(data)
        file.flush()
        try:
            found = archive.inspect(Path(file.name), LIMIT)
            read = {name: found.read(name) for name in found.members}
        except UploadRefused:
            return
        with zipfile.ZipFile(file.name) as theirs:
            assert read == {name: theirs.read(name) for name in theirs.namelist()}


def walk_configuration(data: bytes) -> None:
    """What is accepted names allowed classes only, and stays as it is when it is walked again."""
    if not data:
        return
    legacy = bool(data[0] & 1)
    try:
        model = structure.inspect(strict_json.parse(data[1:], "x"), legacy=legacy)
        budget.check(model, LIMIT)
    except UploadRefused:
        return
    assert structure.inspect(json.loads(json.dumps(model, allow_nan=False))) == model


def read_predict(data: bytes) -> None:
    """A body in the dialect of TensorFlow Serving: tensors of the signature, or a refusal."""
    if not data:
        return
    contract = CONTRACTS[data[0] % len(CONTRACTS)]
    with contextlib.suppress(InputInvalid):
        request = tensorflow_serving.parse(Body(data[1:]), contract)
        assert request.tensors["x"].dtype == contract.signature.inputs[0].numpy_dtype()


def read_infer(data: bytes) -> None:
    """A body of the Open Inference Protocol, as text and with tensors as bytes behind it."""
    if len(data) < 3:
        return
    contract = CONTRACTS[data[0] % len(CONTRACTS)]
    (head,) = struct.unpack_from("<H", data, 1)
    for size in (TEXT, head):
        with contextlib.suppress(InputInvalid):
            request = open_inference.parse(Body(data[3:], Dialect.OPEN_INFERENCE, size), contract)
            assert request.tensors["x"].dtype == contract.signature.inputs[0].numpy_dtype()


def verify_token(data: bytes) -> None:
    """Nothing but a token that we signed is verified, and nothing but TokenInvalid is raised."""
    with contextlib.suppress(TokenInvalid):
        VERIFIER.verify(data.decode("latin-1"))
        raise AssertionError("a token that nobody signed was taken")


def read_credentials(data: bytes) -> None:
    """A Basic header: a name without a colon and a password, or a refusal."""
    with contextlib.suppress(CredentialsMalformed):
        name, password = read_basic(b"Basic " + data)
        assert ":" not in name
        (name + password).encode("utf-8")


def write_problem(data: bytes) -> None:
    """An error about anything at all becomes JSON in one of our shapes, with a body of bounded size."""
    error = SluiceError(data[1:].decode("utf-8", "surrogateescape"))
    path = PATHS[data[0] % len(PATHS)] if data else PATHS[0]
    status, headers, body = render(path, error)
    assert isinstance(json.loads(body), dict)
    assert len(body) < 6 * MOST_CHARACTERS + 1000
    assert status == error.status
    assert all("\n" not in value and "\r" not in value for value in headers.values())


Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {
    "json": read_json,
    "archive": read_archive,
    "configuration": walk_configuration,
    "predict": read_predict,
    "infer": read_infer,
    "token": verify_token,
    "credentials": read_credentials,
    "problem": write_problem,
}

_MODEL = json.dumps(sequential(dense(), layer("StringLookup", vocabulary=["a"]))).encode()
_INFER = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}'
_BINARY = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}]}'
# Where each begins: something that is read whole.
SEEDS: dict[str, tuple[bytes, ...]] = {
    "json": (METADATA, _MODEL, b'[1e5, -0.0, "\\ud83d\\ude00", null, true]'),
    "archive": (archive_of(_MODEL), archive_of(b"{}", b"x")),
    "configuration": (b"\0" + _MODEL, b"\1" + _MODEL),
    "predict": (b'\0{"instances": [[1.0, 2]]}', b'\1{"inputs": [[1, 2]]}', b'\2{"instances": [{"b64": "YQ=="}, "a"]}'),
    "infer": (b"\0\0\0" + _INFER, b"\0" + struct.pack("<H", len(_BINARY)) + _BINARY + b"\0" * 8),
    "token": (".".join([encoded(json.dumps(HEADER).encode()), encoded(b'{"iss": "sluice"}'), "AA"]).encode(),),
    "credentials": (b"YTpi", b"Y2xpX2E6c2VjcmV0"),
    "problem": (b"\0no such model", b"\2\xed\xa0\x80"),
}
