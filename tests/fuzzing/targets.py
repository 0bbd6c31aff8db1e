"""The readers of strangers' bytes, each as a function that only raises where a promise is broken."""

from __future__ import annotations

import contextlib
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import DecodeError

from auth.errors import TokenInvalid
from auth.tokens import Verifier
from gateway.basic_credentials import CredentialsMalformed, read_basic
from gateway.errors import MOST_CHARACTERS, RequestTooLarge, render
from gateway.file_bodies import files_of
from gateway.grpc_services import example_messages, predict_messages
from gateway.grpc_services.failures import CallFailed
from gateway.grpc_services.messages import message
from model_store.errors import SluiceError
from model_store.signature import Signature, TensorSpec
from tests.forgery import HEADER, KEY, NOW, FixedKeys, encoded
from tests.hostile.bait import archive as archive_of
from tests.keras_archives import METADATA, dense, layer, sequential
from workers.errors import InputInvalid, UploadRefused
from workers.preparation import archive, budget, strict_json, structure
from workers.protocols import examples, files, mlflow_scoring, open_inference, tensorflow_serving
from workers.protocols.body import TEXT, Body, Dialect
from workers.protocols.contract import Contract
from workers.protocols.file_reading import UNREAD

LIMIT = 1024**2
PATHS = ("/v1/models/a:predict", "/v2/models/a/infer", "/models/a/invocations", "/admin/models", "/oauth/token", "/")
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
FILE_CONTRACTS = tuple(
    Contract(f"f{number}", 1, Signature((spec,), (spec,)), 100, input_specification=said, files=UNREAD)
    for number, (spec, said) in enumerate(
        (
            (
                TensorSpec("x", "float32", (None, 2, 3)),
                '{"kind":"image","height":2,"width":3,"channels":1,"resize":"none","range":[0,1]}',
            ),
            (TensorSpec("x", "float32", (None, 8)), '{"kind":"audio","sample_rate":8,"channels":1,"range":[-1,1]}'),
            (TensorSpec("x", "string", (None,)), '{"kind":"text","lowercase":true,"max_characters":3}'),
            (TensorSpec("x", "float32", (None, 2)), None),
        )
    )
)
EXAMPLE_CONTRACTS = tuple(
    Contract(f"e{number}", 1, Signature((spec,), (TensorSpec("y", "float32", (None, 1)),)), 100)
    for number, spec in enumerate(
        (
            TensorSpec("x", "float32", (None, 2)),
            TensorSpec("x", "int8", (None, None, 2)),
            TensorSpec("x", "bool", (None,)),
            TensorSpec("inputs", "string", (None,)),
        )
    )
)
PredictRequest, Input = message("tensorflow.serving.PredictRequest"), message("tensorflow.serving.Input")
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


def read_scoring(data: bytes) -> None:
    """A body of MLflow's scoring protocol, as JSON and as CSV."""
    if not data:
        return
    contract = CONTRACTS[data[0] % len(CONTRACTS)]
    for parse in (mlflow_scoring.parse, mlflow_scoring.parse_csv):
        with contextlib.suppress(InputInvalid):
            request = parse(Body(data[1:], Dialect.MLFLOW), contract)
            assert request.tensors["x"].dtype == contract.signature.inputs[0].numpy_dtype()


def read_file(data: bytes) -> None:
    """A body that is a file, or a form of files, as the gateway reads it: by its beginning."""
    if not data:
        return
    contract = FILE_CONTRACTS[data[0] % len(FILE_CONTRACTS)]
    spec = contract.signature.inputs[0]
    for take_apart in (False, True):
        with contextlib.suppress(InputInvalid):
            sent = files_of(b"multipart/form-data; boundary=b", data[1:]) if take_apart else [(None, data[1:])]
            request = files.parse(files.body_of(sent), contract)
            assert request.tensors["x"].dtype == spec.numpy_dtype()
            assert request.instances == len(sent)


def read_examples(data: bytes) -> None:
    """A body of `:classify` and `:regress`, for inputs of several kinds and for a model that parses examples itself."""
    if not data:
        return
    contract = EXAMPLE_CONTRACTS[data[0] % len(EXAMPLE_CONTRACTS)]
    spec = contract.signature.inputs[0]
    for parse in (examples.parse_classify, examples.parse_regress):
        with contextlib.suppress(InputInvalid):
            request = parse(Body(data[1:], Dialect.CLASSIFY), contract)
            assert request.tensors[spec.name].dtype == spec.numpy_dtype()


def read_tensors(data: bytes) -> None:
    """A message of TensorFlow Serving: tensors of bounded size and whole bodies of examples, or a refusal."""
    with contextlib.suppress(DecodeError, InputInvalid, RequestTooLarge):
        body, _ = predict_messages.body_of(PredictRequest.FromString(data), LIMIT)
        assert len(body) < 2 * LIMIT
    with contextlib.suppress(DecodeError, InputInvalid, RequestTooLarge, CallFailed):
        assert isinstance(json.loads(example_messages.body_of(Input.FromString(data), "", LIMIT)), dict)


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
    "scoring": read_scoring,
    "file": read_file,
    "examples": read_examples,
    "tensors": read_tensors,
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
    "scoring": (b'\0{"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 2]]}}', b'\0a,"b"\n1.0,2\n'),
    "file": (
        b"\0\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\3\0\0\0\2",
        b"\0\xff\xd8\xff\xe0\0\4ab\xff\xc0\0\x0b\x08\0\2\0\3",
        b"\0RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0\2\0\0\1\0\0",
        b"\1fLaC",
        b"\2caf\xc3\xa9",
        b'\2--b\r\nContent-Disposition: form-data; name="x"\r\n\r\na\r\n--b--\r\n',
        b'\3--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n[1, 2.5]\r\n--b--\r\n',
    ),
    "examples": (b'\0{"context": {"x": 1}, "examples": [{"x": [1.0, 2]}]}', b'\3{"examples": [{"a": [1.5, 2]}, {}]}'),
    "tensors": (
        PredictRequest(
            inputs={"x": {"dtype": 1, "tensor_shape": {"dim": [{"size": 2}]}, "float_val": [1, 2]}}
        ).SerializeToString(),
        PredictRequest(
            inputs={"x": {"dtype": 7, "tensor_shape": {"dim": [{"size": 2}]}, "string_val": [b"a"]}}
        ).SerializeToString(),
        Input(
            example_list={"examples": [{"features": {"feature": {"x": {"int64_list": {"value": [1, -1]}}}}}]}
        ).SerializeToString(),
    ),
    "token": (".".join([encoded(json.dumps(HEADER).encode()), encoded(b'{"iss": "sluice"}'), "AA"]).encode(),),
    "credentials": (b"YTpi", b"Y2xpX2E6c2VjcmV0"),
    "problem": (b"\0no such model", b"\2\xed\xa0\x80"),
}
