"""Formats of files: rows cut into chunks anywhere, each answered as if it had been asked alone."""

from __future__ import annotations

import csv
import io
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from model_store.artifacts import Artifacts
from model_store.errors import ArtifactMissing
from model_store.signature import Signature, TensorSpec
from tests.onnx_models import line
from tests.queue_kit import doubling_model
from workers.batches import Loaded, predict_all
from workers.files.chunks import failed_lines, pack_chunk, unpack_answer
from workers.files.contract import Asked, ChunkSize, FileInvalid, Refused, Span
from workers.files.csv_rows import header_of
from workers.files.formats import format_named
from workers.files.json_rows import uniform_rows
from workers.files.row_batches import answer_chunk
from workers.protocols.body import Body
from workers.protocols.contract import Contract
from workers.runtimes.onnx import OnnxPredictor

WIDE = ChunkSize(1000, 1 << 20, 1 << 20)
SIGNATURE = Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 2)),))
TWO = Signature(
    (TensorSpec("size", "float32", (None, 2)), TensorSpec("kind", "int64", (None,))),
    (TensorSpec("y", "float32", (None, 2)),),
)


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    path = doubling_model(tmp_path_factory.mktemp("model") / "double.onnx")
    return Loaded(Contract("double", 1, SIGNATURE, 100), OnnxPredictor(path, SIGNATURE, 0), 4, 1, 0.0001)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return Artifacts(tmp_path_factory.mktemp("store"), 10**9)


def keep(artifacts: Artifacts, data: bytes) -> str:
    with artifacts.receive_file("file_a", 10**9) as receipt:
        # No upload is empty; here one stands for a file whose rows have all been read.
        receipt.write(data or b"\n")
        receipt.commit()
    return "file_a"


def chunk_inputs(
    artifacts: Artifacts, format_name: str, data: bytes, contract: Contract, size: ChunkSize
) -> Iterator[bytes]:
    """Inputs of chunks' jobs; each is cut by a reader of its own, which goes on where the one before ended."""
    name, checkpoint = keep(artifacts, data), None
    while True:
        chunk = next(iter(format_named(format_name).chunks(io.BytesIO(data), contract, size, checkpoint)), None)
        if chunk is None:
            return
        checkpoint = json.loads(json.dumps(chunk.checkpoint))
        yield pack_chunk(format_name, name, chunk)


def answers(
    loaded: Loaded, artifacts: Artifacts, format_name: str, data: bytes, size: ChunkSize = WIDE
) -> tuple[list[dict], int]:
    """The lines of a whole file, and how many rows its chunks say that failed."""
    lines, failed = [], 0
    for body in chunk_inputs(artifacts, format_name, data, loaded.contract, size):
        text, count, _ = unpack_answer(answer_chunk(loaded, artifacts, body).data)
        failed += count
        lines += [json.loads(one) for one in text.splitlines()]
    return lines, failed


def alone(loaded: Loaded, row: bytes) -> dict:
    """What a request of this row alone is answered; a line that is several values is no row."""
    try:
        json.loads(row)
    except ValueError:
        return {"error": "input_invalid"}
    outcome = predict_all(loaded, [Body(b'{"instances":[%b]}' % row)])[0]
    return json.loads(outcome.data) if isinstance(outcome, Body) else {"error": outcome.code}


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-(10**6), 10**6)
good_rows = st.lists(numbers, min_size=2, max_size=2).map(lambda row: json.dumps(row).encode())
bad_rows = st.sampled_from(
    [
        b"",
        b"[1",
        b"1]",
        b"[1,2],[3,4]",
        b"nonsense",
        b"[1,2,3]",
        b"[]",
        b'"[1,2]"',
        b"[null,1]",
        b"{}",
        b"\xff",
        b"[[1,2]]",
    ]
)
fields = st.sampled_from(["1", "-2.5", "x", "", 'say "no"', "a,b", "two\nlines", "1e3"])
sizes = st.builds(ChunkSize, st.integers(1, 8), st.integers(1, 60), st.just(1 << 20))


@settings(max_examples=150)
@example([b"[1,2]", b"[1,2],[3,4]", b"[1", b"1]"], WIDE, True)
@given(rows=st.lists(good_rows | bad_rows, max_size=12), size=sizes, ended=st.booleans())
def test_any_rows_cut_anywhere_are_answered_as_each_of_them_alone(
    double: Loaded, artifacts: Artifacts, rows: list[bytes], size: ChunkSize, ended: bool
):
    data = b"\n".join(rows) + (b"\n" if ended and rows else b"")
    # A last line that is empty and has no end is none.
    asked = rows[:-1] if rows and not ended and not rows[-1] else rows

    lines, failed = answers(double, artifacts, "jsonl", data, size)

    assert [line["row"] for line in lines] == list(range(len(asked)))
    for found, row in zip(lines, asked, strict=True):
        wanted = alone(double, row)
        told = {"error": found["error"]["code"]} if "error" in found else {"predictions": found["predictions"]}
        assert told == wanted, row
    assert failed == sum("error" in line for line in lines)
    assert format_named("jsonl").total(io.BytesIO(data), double.contract, lambda: None) == len(asked)


@settings(max_examples=100)
@given(rows=st.lists(st.lists(fields, min_size=1, max_size=3), min_size=1, max_size=8), size=sizes)
def test_a_table_cut_anywhere_has_the_rows_that_a_reader_of_it_finds(
    double: Loaded, artifacts: Artifacts, rows: list[list[str]], size: ChunkSize
):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["a", "b"])
    writer.writerows(rows)

    lines, _ = answers(double, artifacts, "csv", text.getvalue().encode(), size)

    assert len(lines) == len(rows)
    for found, row in zip(lines, rows, strict=True):
        try:
            wanted = [2 * float(field) for field in row]
        except ValueError:
            wanted = []
        assert found.get("predictions") == ([wanted] if len(wanted) == 2 else None), row


def test_a_row_may_be_an_object_with_an_id_which_comes_back(double: Loaded, artifacts: Artifacts):
    rows = (
        b'{"id": "a", "instance": [1, 2]}\n{"id": 7, "x": [3, 4]}\n{"instances": [[1, 1], [2, 2]], "id": "many"}\n'
        b'{"inputs": [[5, 6]]}\n{"id": "bad", "instance": [1]}\n{"id": {"no": 1}, "instance": [1, 2]}\n'
    )

    lines, failed = answers(double, artifacts, "jsonl", rows)

    assert lines[0] == {"row": 0, "id": "a", "predictions": [[2.0, 4.0]]}
    assert lines[1] == {"row": 1, "id": 7, "predictions": [[6.0, 8.0]]}
    assert lines[2] == {"row": 2, "id": "many", "predictions": [[2.0, 2.0], [4.0, 4.0]]}
    assert lines[3] == {"row": 3, "outputs": [[10.0, 12.0]]}
    assert (lines[4]["id"], lines[4]["error"]["code"]) == ("bad", "input_invalid")
    assert failed == 2


def test_a_row_that_is_too_long_gets_an_error_and_the_others_run(double: Loaded, artifacts: Artifacts):
    long = b"[1, " + b" " * 5000 + b"2]"
    size = ChunkSize(100, 64, 1000)

    for lines in (
        answers(double, artifacts, "jsonl", b"[1,2]\n" + long + b"\n[3,4]\n", size)[0],
        answers(double, artifacts, "csv", b"1,2\n" + b"1," + b" " * 5000 + b"2\n3,4\n", size)[0],
    ):
        assert [line.get("predictions") for line in lines] == [[[2.0, 4.0]], None, [[6.0, 8.0]]]
        assert "a row may have 1000" in lines[1]["error"]["message"]


def test_a_quotation_mark_that_never_ends_fails_the_file_with_the_rows_number(double: Loaded, artifacts: Artifacts):
    data = b'1,2\n"3,4\n' + b"5,6\n" * 1000

    for size in (ChunkSize(100, 64, 500), WIDE):
        with pytest.raises(FileInvalid, match="row 1 "):
            answers(double, artifacts, "csv", data, size)
    with pytest.raises(FileInvalid, match="row 1 "):
        format_named("csv").total(io.BytesIO(data), double.contract, lambda: None)


def test_columns_are_found_by_their_names_where_a_model_has_several_inputs():
    contract = Contract("two", 1, TWO, 100)
    data = b"kind,id,size.0,size.1\n7,first,1.5,2\nx,second,3,4\n"
    chunk = next(iter(format_named("csv").chunks(io.BytesIO(data), contract, WIDE, None)))
    assert isinstance(chunk.data, Span)
    asked = Asked(0, 2, data[chunk.data.offset :], chunk.terms)

    good, bad = format_named("csv").pieces(asked, contract)

    assert not isinstance(good, Refused)
    assert {name: tensor.tolist() for name, tensor in good.tensors.items()} == {"size": [[1.5, 2.0]], "kind": [7]}
    assert isinstance(bad, Refused)
    assert json.loads(bad.line)["id"] == "second"
    with pytest.raises(FileInvalid, match="belongs to no input"):
        list(format_named("csv").chunks(io.BytesIO(b"kind,colour,size.0,size.1\n"), contract, WIDE, None))
    with pytest.raises(FileInvalid, match="must name the columns"):
        list(format_named("csv").chunks(io.BytesIO(b"1,2,3\n"), contract, WIDE, None))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "uint8"])
def test_arrays_are_answered_row_by_row(double: Loaded, artifacts: Artifacts, save: object, dtype: str):
    rows = np.arange(22).reshape(11, 2).astype(dtype)
    file = io.BytesIO()
    save(file, x=rows)  # type: ignore[operator]

    lines, failed = answers(double, artifacts, "npz", file.getvalue(), ChunkSize(3, 1 << 20, 1000))

    assert [line["predictions"] for line in lines] == [[(2.0 * row).tolist()] for row in rows.astype(float)]
    assert failed == 0


def test_a_chunk_of_many_lines_is_the_tensor_of_its_numbers():
    # Longer than what is parsed at a time, and one line longer than that by itself.
    signature = Signature((TensorSpec("x", "float64", (None, 3)),), ())
    rows = np.random.default_rng(0).random((40_000, 3))
    lines = [json.dumps(row).encode() for row in rows.tolist()]
    lines[17] = lines[17].replace(b",", b"," + b" " * 1_000_000)

    found = uniform_rows(b"\n".join(lines) + b"\n", signature)

    assert found is not None
    assert np.array_equal(found, rows)
    assert uniform_rows(b"\n".join(lines) + b"\n[1,2]\n", signature) is None


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, data in members.items():
            made.writestr(f"{name}.npy", data)
    return file.getvalue()


def array(rows: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    np.save(file, rows, **options)  # type: ignore[arg-type]
    return file.getvalue()


def compressed(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        made.writestr("x.npy", array(np.zeros((3, 2), np.float32)))
    return file.getvalue()


def directory_of(entries: int, shift: int = 0) -> bytes:
    """An archive whose directory names its one member so many times, so many bytes before where it is."""
    whole = archive(x=array(np.zeros((3, 2), np.float32)))
    start, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    listed = whole[start:end] * entries
    return (
        whole[:start]
        + listed
        + whole[end : end + 12]
        + struct.pack("<II", len(listed), start + shift)
        + whole[end + 20 :]
    )


BROKEN = {
    "bzip2, of which a megabyte may be gigabytes": (compressed(zipfile.ZIP_BZIP2), "neither stored nor deflated"),
    "lzma": (compressed(zipfile.ZIP_LZMA), "neither stored nor deflated"),
    "a vast directory": (directory_of(30_000), "directory has more than"),
    "a member before the file": (directory_of(1, shift=1_000), "points out of the file"),
    "many members": (directory_of(1_001), "more than 1000 members"),
    "no archive": (b"PK nonsense", "cannot be read"),
    "pickled objects": (archive(x=array(np.array([[1, None]], object), allow_pickle=True)), "objects are never read"),
    "another shape": (archive(x=array(np.zeros((3, 3), np.float32))), "has shape"),
    "Fortran's order": (archive(x=array(np.asfortranarray(np.zeros((3, 2), np.float32)))), "Fortran"),
    "complex numbers": (archive(x=array(np.zeros((3, 2), np.complex64))), "dtype complex64"),
    "cut": (archive(x=array(np.zeros((3, 2), np.float32))[:-4]), "ends within the rows"),
    "code for a head": (archive(x=b"\x93NUMPY\x01\x00\x10\x00__import__('os')"), "cannot be read"),
    "a list for a key": (archive(x=b"\x93NUMPY\x01\x00\x08\x00{[]: 1} "), "cannot be read"),
    "several arrays": (archive(x=array(np.zeros((1, 2), np.float32)), z=array(np.zeros(1))), "an array for each"),
    "long rows": (archive(x=array(np.zeros((1, 2), np.float32))), "a row may have"),
}


@pytest.mark.parametrize("fault", sorted(BROKEN))
def test_an_archive_that_cannot_be_trusted_is_refused(double: Loaded, artifacts: Artifacts, fault: str):
    data, reason = BROKEN[fault]
    size = ChunkSize(10, 1000, 4 if fault == "long rows" else 1000)

    with pytest.raises(FileInvalid, match=reason):
        answers(double, artifacts, "npz", data, size)


@pytest.mark.parametrize("character", [0xD800, 0xDFFF, 0x110000, 0x7FFFFFFF, 0xFFFFFFFF], ids=hex)
@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_of_characters_that_there_are_not_are_refused(character: int, order: str):
    signature = Signature((TensorSpec("x", "string", (None,)),), ())
    contract, size = Contract("text", 1, signature, 100), ChunkSize(10, 1000, 1000)
    fine = array(np.array(["\ud7ff\ue000\U0010ffff", "é"]).astype(f"{order}U3"))
    text = fine[:-4] + struct.pack(f"{order}I", character)

    assert [chunk.rows for chunk in format_named("npz").chunks(io.BytesIO(archive(x=fine)), contract, size, None)] == [
        2
    ]
    with pytest.raises(FileInvalid, match="characters that there are not"):
        list(format_named("npz").chunks(io.BytesIO(archive(x=text)), contract, size, None))


def test_rows_without_values_are_no_rows_however_many_an_archive_announces():
    signature = Signature((TensorSpec("x", "float32", (None, None)),), ())
    file = io.BytesIO(archive(x=array(np.zeros((2_000_000_000, 0), np.float32))))

    with pytest.raises(FileInvalid, match="hold no values"):
        format_named("npz").total(file, Contract("open", 1, signature, 100), lambda: None)


def test_a_first_line_of_megabytes_is_read_whole_or_refused():
    signature = Signature((TensorSpec("x", "float32", (None, None)),), ())
    contract, row = Contract("wide", 1, signature, 100), b",".join([b"0.12345"] * 200_000) + b"\n"

    [chunk] = format_named("csv").chunks(io.BytesIO(row), contract, ChunkSize(10, 1 << 23, 1 << 23), None)
    assert chunk.terms["columns"] == 200_000
    with pytest.raises(FileInvalid, match="first line has more than"):
        format_named("csv").total(io.BytesIO(row.rstrip() * 3), contract, lambda: None)


def test_one_row_that_a_model_fails_on_spoils_none_of_its_batch(tmp_path: Path, artifacts: Artifacts):
    signature = Signature((TensorSpec("place", "int64", (None,)),), (TensorSpec("y", "float32", (None,)),))
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "place"], ["y"])],
        "table",
        [helper.make_tensor_value_info("place", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor("table", TensorProto.FLOAT, [3], [10.0, 11.0, 12.0])],
    )
    path = tmp_path / "table.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    table = Loaded(Contract("table", 1, signature, 100), OnnxPredictor(path, signature, 0), 2, 1, 0.0001)

    lines, failed = answers(table, artifacts, "jsonl", b"0\n1\n7\n2\n")

    assert [one.get("predictions") for one in lines] == [[10.0], [11.0], None, [12.0]]
    assert (failed, lines[2]["error"]["code"]) == (1, "prediction_failed")


def test_rows_of_a_shape_that_a_model_fails_on_spoil_no_others(tmp_path: Path, artifacts: Artifacts):
    signature = Signature((TensorSpec("x", "float32", (None, None)),), (TensorSpec("y", "float32", (None, 1)),))
    path = line(tmp_path / "line.onnx", weights=[2.0, 3.0], bias=1.0)
    # The graph takes rows of two numbers, which its signature does not say.
    loose = Loaded(Contract("line", 1, signature, 100), OnnxPredictor(path, signature, 0), 4, 1, 0.0001)

    lines, failed = answers(loose, artifacts, "jsonl", b"[1,1]\n[1,2,3]\n[2,2]\n")

    assert [line.get("predictions") for line in lines] == [[[6.0]], None, [[11.0]]]
    assert (failed, lines[1]["error"]["code"]) == (1, "prediction_failed")


def test_a_chunk_that_never_ran_gives_each_row_its_error_and_its_id(double: Loaded, artifacts: Artifacts):
    data = b'{"id":"a","instance":[1,2]}\n[1,2]\nnonsense "id"\n'
    body = next(chunk_inputs(artifacts, "jsonl", data, double.contract, WIDE))

    lines = [json.loads(one) for one in failed_lines(artifacts, body, ArtifactMissing("gone")).splitlines()]

    assert [(one["row"], one.get("id"), one["error"]["code"]) for one in lines] == [
        (0, "a", "artifact_missing"),
        (1, None, "artifact_missing"),
        (2, None, "artifact_missing"),
    ]


@pytest.mark.parametrize("line", [b"1;2\n", b"a\tb\n"], ids=["semicolons", "tabs"])
def test_a_first_line_of_other_separators_says_that_commas_are_wanted(line: bytes):
    with pytest.raises(FileInvalid, match="separated by commas"):
        header_of(io.BytesIO(line))


def test_a_row_with_members_that_nobody_knows_is_told_their_names(double: Loaded, artifacts: Artifacts):
    [line], _ = answers(double, artifacts, "jsonl", b'{"id": 7, "instance": [1, 2], "weight": 1, "note": ""}\n')

    assert line["id"] == 7
    assert line["error"]["message"] == "beside 'instance' a row may have an 'id', but this one has 'weight', 'note'"
