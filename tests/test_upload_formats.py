"""What an upload is taken for, which formats are taken at all, and the options that some of them need."""

from __future__ import annotations

import io
import json
import secrets
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from auth.scopes import Scope
from gateway.upload_formats import format_of
from model_store.database import transaction
from model_store.errors import FormatUnsupported
from model_store.formats import Format
from model_store.signature import TensorSpec
from model_store.tables import Version
from model_store.upload_options import UploadOptionInvalid, UploadOptions
from tests.conftest import RedisServer
from tests.live_gateway import LiveGateway, live_gateway, refused


def zip_of(*names: str, content: bytes = b"x") -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(name, b"" if name.endswith("/") else content)
    return held.getvalue()


@pytest.mark.parametrize(
    ("first", "name", "format"),
    [
        (zip_of("metadata.json", "config.json", "model.weights.h5"), "", Format.KERAS),
        (zip_of("assets/words/vocabulary.txt", "config.json"), "", Format.KERAS),
        (zip_of("saved_model.pb"), "", Format.SAVEDMODEL),
        (zip_of("model/", "model/variables/", "model/variables/variables.index"), "", Format.SAVEDMODEL),
        (zip_of("assets/", "assets/words.txt", "fingerprint.pb"), "", Format.SAVEDMODEL),
        (zip_of("digits/data.pkl", "digits/version"), "", Format.TORCHSCRIPT),
        (zip_of("digits/data/0", "digits/data.pkl"), "", Format.TORCHSCRIPT),
        (zip_of("digits/code/__torch__.py"), "x.keras", Format.TORCHSCRIPT),
        (zip_of("what.txt"), "", Format.KERAS),
        (b"PK\x03\x04 cut off", "", Format.KERAS),
        (b"\x89HDF\r\n\x1a\n", "", Format.H5),
        (b"\x1f\x8b\x08", "", Format.SAVEDMODEL),
        (b"\x08\x07", "net.onnx", Format.ONNX),
    ],
    ids=range(13),
)
def test_the_first_bytes_tell_the_format_and_else_the_name(first: bytes, name: str, format: Format):
    assert format_of(first, name) is format


def test_bytes_that_tell_nothing_need_a_name():
    with pytest.raises(FormatUnsupported):
        format_of(b"\x08\x07", "net.bin")


def test_named_inputs_are_read_and_kept_as_they_were_meant():
    options = UploadOptions.parse(None, "x:float32[-1,4],mask:bool[-1],page.no:int64[2,3]")
    specs = ("x", "float32", (None, 4)), ("mask", "bool", (None,)), ("page.no", "int64", (2, 3))
    assert options.inputs == tuple(TensorSpec(*spec) for spec in specs)
    assert UploadOptions.from_json(options.to_json()) == options
    assert UploadOptions.parse(None, None).to_json() is None


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "x:float32", "x:float32[]", "x:complex64[1]", "x:float32[0]", "x:float32[-2]", "x:float32[-1],",
        "a b:bool[1]", "x:bool[1],x:bool[1]", "x:float32[-1,4] ", "x:float32[1,1,1,1,1,1,1,1,1]",
        ",".join(f"x{n}:bool[1]" for n in range(65)),
    ],
    ids=range(13),
)  # fmt: skip
def test_named_inputs_that_cannot_be_read_are_refused(text: str):
    with pytest.raises(UploadOptionInvalid):
        UploadOptions.parse(None, text)


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    settings = {"redis_url": redis_server.url, "key_prefix": f"t{secrets.token_hex(4)}"}
    allowed = "keras,h5,onnx,savedmodel"
    with live_gateway(tmp_path_factory.mktemp("gateway"), upload_formats=allowed, **settings) as made:
        yield made


@pytest.fixture(scope="module")
def admin(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client([Scope.MODELS_WRITE, Scope.CLIENTS_ADMIN]) as client:
        yield client


def send(admin: httpx.Client, model: str, content: bytes, **query: str) -> httpx.Response:
    return admin.put(f"/admin/models/{model}/versions", params=query, content=content)


def test_a_format_that_an_administrator_allows_is_taken_with_its_options_and_others_are_not(
    gateway: LiveGateway, admin: httpx.Client
):
    packed = zip_of("saved_model.pb")

    first, again, other = (send(admin, "s", packed, **query) for query in ({}, {}, {"signature": "names"}))
    script = send(admin, "t", zip_of("m/data.pkl"), inputs="x:float32[-1,4]")

    assert [answer.status_code for answer in (first, again, other)] == [202, 200, 202]
    assert [answer.json()["version"] for answer in (first, again, other)] == [1, 1, 2]
    with transaction(gateway.parts.sessions) as session:
        version = session.get_one(Version, ("s", 2))
        assert (version.format, json.loads(version.options or "")["signature"]) == ("savedmodel", "names")
    assert refused(script, 415, "unsupported_format")
    assert "SLUICE_UPLOAD_FORMATS (now keras,h5,onnx,savedmodel)" in script.json()["detail"]


@pytest.mark.parametrize(
    ("query", "content"),
    [
        ({"inputs": "x:float32"}, b"\x89HDF\r\n\x1a\n"),
        ({"inputs": "x:float32[1]"}, b"\x89HDF\r\n\x1a\n"),
        ({"signature": "names"}, b"\x89HDF\r\n\x1a\n"),
        ({"inputs": "x:float32[1]"}, zip_of("saved_model.pb")),
    ],
    ids=["unreadable", "of another format", "a signature of another format", "inputs of a SavedModel"],
)
def test_an_option_that_would_not_be_heeded_is_refused(admin: httpx.Client, query: dict[str, str], content: bytes):
    assert refused(send(admin, "o", content, **query), 422, "upload_option_invalid")


def test_the_setting_names_formats_that_there_are(tmp_path: Path, redis_server: RedisServer):
    with (
        pytest.raises(ValueError, match="upload_formats"),
        live_gateway(tmp_path, redis_url=redis_server.url, upload_formats="keras,pickle"),
    ):
        pass
