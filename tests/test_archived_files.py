"""Recordings and texts in zip archives become instances, in a runner, as they do one by one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.signature import Signature, Tensor, TensorSpec
from tests.file_kit import recording
from tests.test_decoding import archive
from workers.decoding import archived
from workers.decoding.decoder import DecodingFailed
from workers.decoding.formats import ArchivedFiles, archived_as
from workers.files.contract import Asked, Chunk, ChunkSize, Refused
from workers.files.formats import format_named
from workers.files.row_lines import UniformRows
from workers.protocols.contract import Contract
from workers.settings import RunnerSettings

OUTPUTS = (TensorSpec("y", "float32", (None, 1)),)
SOUND = TensorSpec("x", "float32", (None, 80))
WORDS = TensorSpec("x", "string", (None, 1))
HEARD = {"kind": "audio", "sample_rate": 800, "channels": 1, "range": [-1, 1]}
SAMPLES = np.round(np.sin(np.arange(60) / 5) * 1000) / 2**15
TONE = np.pad(SAMPLES, (0, 20)).astype(np.float32)


def contract(spec: TensorSpec, said: dict[str, object] | None) -> Contract:
    specification = None if said is None else json.dumps(said)
    return Contract("m", 1, Signature((spec,), OUTPUTS), 1000, input_specification=specification)


def chunks(folder: Path, content: bytes, terms: Contract, first_row: int = 0) -> list[Chunk]:
    files = ArchivedFiles(lambda: RunnerSettings(scratch_dir=folder))
    checkpoint = None if first_row == 0 else {"row": first_row}
    return list(files.chunks(io.BytesIO(content), terms, ChunkSize(2, 2**20, 2**20), checkpoint))


def rows_of(found: list[Chunk], terms: Contract) -> list[Tensor | str]:
    """Each row's instance, or why there is none."""
    rows: list[Tensor | str] = []
    for chunk in found:
        assert isinstance(chunk.data, bytes)
        for piece in ArchivedFiles().pieces(Asked(chunk.first_row, chunk.rows, chunk.data, chunk.terms), terms):
            assert piece.first_row == len(rows)
            if isinstance(piece, Refused):
                rows.append(json.loads(piece.line)["error"]["message"])
            else:
                assert isinstance(piece, UniformRows)
                rows += list(piece.tensors["x"])
    return rows


def test_recordings_of_an_archive_are_instances_in_its_order_and_a_wrong_one_fails_alone(tmp_path: Path):
    terms = contract(SOUND, HEARD)
    content = archive(
        {
            "a.wav": recording(SAMPLES, 800),
            "no.txt": b"text",
            "b.flac": recording(SAMPLES, 800, "FLAC"),
            ".DS_Store": b"",
        }
    )

    found = chunks(tmp_path, content, terms)

    assert [(chunk.first_row, chunk.rows, chunk.total) for chunk in found] == [(0, 2, 3), (2, 1, 3)]
    first, wrong, last = rows_of(found, terms)
    assert isinstance(first, np.ndarray)
    assert isinstance(last, np.ndarray)
    assert first.dtype == np.float32
    assert first.tobytes() == last.tobytes() == TONE.tobytes()
    assert wrong == "no.txt: it is no WAV or FLAC that can be read"


def test_texts_of_an_archive_are_strings_by_the_input_specification(tmp_path: Path):
    terms = contract(WORDS, {"kind": "text", "lowercase": True, "max_characters": 8})
    content = archive({"a.txt": "\ufeffÄrger IM Büro".encode(), "b.txt": b"\xff", "c": b"", "d": b"x" * (2**20 + 1)})

    rows = rows_of(chunks(tmp_path, content, terms), terms)

    assert [row if isinstance(row, str) else row.tolist() for row in rows] == [
        ["ärger im".encode()], "b.txt: it is no text in UTF-8", [b""], "d: the file has more than 1,048,576 bytes"
    ]  # fmt: skip


def test_a_batch_of_texts_ends_where_they_are_long_enough_and_goes_on_behind(tmp_path: Path):
    content = archive({str(number): b"x" * 1000 for number in range(10)})
    (tmp_path / "file").write_bytes(content)
    held: dict[str, Any] = {}
    opened = {
        "file": str(tmp_path / "file"), "most_rows": 100, "specification": None,
        "signature": Signature((WORDS,), OUTPUTS).to_json(),
    }  # fmt: skip
    assert archived.open_texts(held, opened, {}) == ({"rows": 10}, {})
    answer, tensors = archived.read_rows(held, {"start": 4, "batch_rows": 100, "batch_bytes": 2500}, {})
    assert (answer, tensors["x"].shape) == ({"rows": 3, "wrong": []}, (3, 1))
    answer, tensors = archived.read_rows(held, {"start": 9, "batch_rows": 100, "batch_bytes": 10}, {})
    assert (answer, tensors["x"].tolist()) == ({"rows": 1, "wrong": []}, [[b"x" * 1000]])


@pytest.mark.parametrize(
    ("spec", "said", "kind", "shape"),
    [
        (SOUND, HEARD, "recordings", (None, 80)),
        (TensorSpec("x", "float32", (None, None, 1)), HEARD | {"seconds": 0.5}, "recordings", (None, 400, 1)),
        (TensorSpec("x", "string", (None,)), None, "texts", (None,)),
        (TensorSpec("x", "string", (None, None)), {"kind": "text"}, "texts", (None, 1)),
        (TensorSpec("x", "uint8", (None, 2, 3)), None, "images", None),
        (SOUND, HEARD | {"input": "another"}, "images", None),
    ],
    ids=["audio", "audio of a said length", "strings", "strings in rows", "images", "audio for another input"],
)
def test_what_the_files_are_is_what_the_version_takes(
    spec: TensorSpec, said: dict[str, object] | None, kind: str, shape: tuple[int | None, ...] | None
):
    found, one = archived_as(contract(spec, said))
    assert (found, None if one is None else one.shape) == (kind, shape)


@pytest.mark.parametrize(
    ("spec", "said", "code"),
    [
        (TensorSpec("x", "string", (None, 2)), None, "texts_unfit"),
        (TensorSpec("x", "float32", (None, 2, 2)), HEARD, "recordings_unfit"),
        (TensorSpec("x", "float32", (None, None)), HEARD, "recordings_unfit"),
    ],
    ids=["two strings", "two channels", "any length"],
)
def test_a_version_whose_instances_are_none_of_them_reads_nothing(
    spec: TensorSpec, said: dict[str, object] | None, code: str
):
    with pytest.raises(DecodingFailed) as refusal:
        archived_as(contract(spec, said))
    assert refusal.value.code == code


def test_an_archive_is_told_by_its_type_and_read_by_what_the_version_takes():
    assert isinstance(format_named("files"), ArchivedFiles)
