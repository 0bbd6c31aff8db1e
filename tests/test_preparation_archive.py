"""The gate for the zip structure of `.keras` archives."""

from __future__ import annotations

import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.keras_archives import dense, sequential, write_archive
from tests.models import ModelFile
from workers.errors import UploadRefused
from workers.preparation import archive

LIMIT = 64 * 1024**2


def refusal(path: Path) -> str:
    """The code with which the gate refuses the file, its members read to the end."""
    with pytest.raises(UploadRefused) as caught:
        read_all(path)
    return caught.value.code


def read_all(path: Path) -> dict[str, bytes]:
    found = archive.inspect(path, LIMIT)
    return {name: found.read(name) for name in found.members}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "good.keras", sequential(dense()))


def test_archives_that_keras_wrote_pass(model_files: dict[str, ModelFile]):
    for name in ("dense", "conv", "lstm", "two_input"):
        found = archive.inspect(model_files[name].path, LIMIT)
        assert set(found.members) == {"metadata.json", "config.json", "model.weights.h5"}
    assert archive.inspect(model_files["text"].path, LIMIT).assets == [
        "assets/layers/text_vectorization/_lookup_layer/vocabulary.txt",
        "assets/layers/text_vectorization/vocabulary.txt",
    ]


def test_a_deflated_archive_unpacks_to_the_same_bytes(tmp_path: Path):
    weights = np.random.default_rng(1).integers(0, 16, 2_500_000).astype(np.uint8).tobytes()
    path = write_archive(tmp_path / "deflated.keras", sequential(), weights=weights, method=zipfile.ZIP_DEFLATED)
    found = archive.inspect(path, LIMIT)
    found.copy("model.weights.h5", tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == weights


def prefixed(data: bytes) -> bytes:
    return b"#!/bin/sh\n" + data


def followed(data: bytes) -> bytes:
    return data + b"\0" * 1024**2


def commented(data: bytes) -> bytes:
    return data[:-2] + struct.pack("<H", 5) + b"hello"


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def without_its_end(data: bytes) -> bytes:
    return data[:-22]


def encrypted(data: bytes) -> bytes:
    return with_central_field(data, 8, struct.pack("<H", 1))


def packed_oddly(data: bytes) -> bytes:
    return with_central_field(data, 10, struct.pack("<H", 12))


def a_symbolic_link(data: bytes) -> bytes:
    return with_central_field(data, 38, struct.pack("<L", 0o120777 << 16))


def named_differently_inside(data: bytes) -> bytes:
    return data.replace(b"config.json", b"c0nfig.json", 1)


def larger_in_the_directory(data: bytes) -> bytes:
    return with_central_field(data, 24, struct.pack("<L", 4_000_000))


def damaged(data: bytes) -> bytes:
    at = data.index(b"Sequential")
    return data[:at] + b"X" + data[at + 1 :]


def with_central_field(data: bytes, offset: int, value: bytes) -> bytes:
    """The archive with a field of its first entry in the central directory replaced."""
    at = data.index(b"PK\x01\x02") + offset
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (prefixed, "zip_prefix"),
        (followed, "zip_suffix"),
        (commented, "zip_suffix"),
        (truncated, "zip_structure"),
        (without_its_end, "zip_structure"),
        (encrypted, "zip_encrypted"),
        (packed_oddly, "zip_method"),
        (a_symbolic_link, "zip_member"),
        (named_differently_inside, "zip_mismatch"),
        (larger_in_the_directory, "zip_mismatch"),
        (damaged, "zip_mismatch"),
    ],
)
def test_an_archive_that_readers_could_understand_differently_is_refused(
    good: Path, change: Callable[[bytes], bytes], code: str
):
    good.write_bytes(change(good.read_bytes()))
    assert refusal(good) == code


@pytest.mark.parametrize("data", [b"", b"\x89HDF\r\n\x1a\n" + b"\0" * 2000, b"<html>" * 100, b"\x80\x04pickle" * 90])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, data: bytes):
    path = tmp_path / "x.keras"
    path.write_bytes(data)
    assert refusal(path) == "zip_structure"


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "C:\\x",
        "a\\..\\b",
        "assets/../../vocabulary.txt",
        "assets/x.txt",
        "weights.npz",
        "assets/",
    ],
)
def test_a_member_that_no_model_needs_is_refused(tmp_path: Path, name: str):
    assert refusal(write_archive(tmp_path / "x.keras", sequential(), more={name: b"x"})) == "zip_member"


@pytest.mark.parametrize("hostile_first", [False, True])
def test_two_members_of_one_name_are_refused_in_either_order(tmp_path: Path, hostile_first: bool):
    path = write_archive(tmp_path / "x.keras", b"hostile" if hostile_first else sequential())
    with zipfile.ZipFile(path, "a") as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns about the name
        opened.writestr("config.json", b"benign" if hostile_first else b"hostile")
    assert refusal(path) == "zip_duplicate_member"


def test_overlapping_members_are_refused(good: Path):
    data = good.read_bytes()
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    good.write_bytes(data[: second + 42] + struct.pack("<L", 0) + data[second + 46 :])
    assert refusal(good) == "zip_overlap"


def test_too_many_members_are_refused(tmp_path: Path):
    more = {f"assets/layers/x{index}/vocabulary.txt": b"a" for index in range(300)}
    assert refusal(write_archive(tmp_path / "x.keras", sequential(), more=more)) == "zip_members"


@pytest.mark.parametrize("missing", ["config.json", "metadata.json", "model.weights.h5"])
def test_a_missing_member_is_named(tmp_path: Path, good: Path, missing: str):
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(good) as whole, zipfile.ZipFile(path, "w") as part:
        for name in whole.namelist():
            if name != missing:
                part.writestr(name, whole.read(name))
    with pytest.raises(UploadRefused, match=missing) as caught:
        archive.inspect(path, LIMIT)
    assert caught.value.code == "missing_member"


@pytest.mark.parametrize(
    ("config", "weights", "code"),
    [
        (b" " * (17 * 1024**2), b"x", "json_size"),
        (b"{}", b"\0" * (32 * 1024**2), "zip_ratio"),
        (b"{}", b"\0" * (65 * 1024**2), "zip_size"),
    ],
)
def test_members_that_unpack_to_too_much_are_refused(tmp_path: Path, config: bytes, weights: bytes, code: str):
    path = write_archive(tmp_path / "x.keras", config, weights=weights, method=zipfile.ZIP_DEFLATED)
    assert refusal(path) == code


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_archive_is_refused_or_reads_as_zipfile_reads_it(good: Path, flips: list[tuple[int, int]]):
    data = bytearray(good.read_bytes())
    for place, value in flips:
        data[place % len(data)] = value
    path = good.with_name("flipped.keras")
    path.write_bytes(data)
    try:
        read = read_all(path)
    except UploadRefused:
        return
    with zipfile.ZipFile(path) as theirs:
        assert read == {name: theirs.read(name) for name in theirs.namelist()}
