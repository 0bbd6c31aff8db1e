"""Parquet and zip archives of images become instances, in a runner; hostile ones end as errors with a reason."""

from __future__ import annotations

import io
import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from model_store.signature import Signature, Tensor, TensorSpec
from workers.decoding.decoder import IMAGES, PARQUET, Decoded, Decoder, DecodingFailed
from workers.decoding.formats import DecodedFormat
from workers.decoding.images import open_file as images_command
from workers.decoding.parquet import open_file as parquet_command
from workers.errors import UploadRefused
from workers.files.contract import Asked, ChunkSize, Refused
from workers.protocols.contract import Contract
from workers.runner.commands import Command
from workers.settings import RunnerSettings

OUTPUTS = (TensorSpec("digit", "float32", (None, 10)),)
PAIRS = Signature((TensorSpec("pair", "float32", (None, 2)),), OUTPUTS)
TEXTS = Signature((TensorSpec("text", "string", (None,)),), OUTPUTS)
BYTES = Signature((TensorSpec("number", "uint8", (None,)),), OUTPUTS)
GREY = Signature((TensorSpec("image", "float32", (None, 2, 3)),), OUTPUTS)
COLOUR = Signature((TensorSpec("image", "uint8", (None, 2, 3, 3)),), OUTPUTS)


def decoded(
    folder: Path,
    kind: str,
    content: bytes,
    signature: Signature,
    *,
    batch_rows: int = 100,
    pixels: str | None = None,
    said: dict[str, object] | None = None,
) -> list[Decoded]:
    """`said` is a version's input specification beside what every one of an image has."""
    specification = None if said is None else json.dumps({"kind": "image", "resize": "none", "range": [0, 1]} | said)
    with Decoder(
        RunnerSettings(scratch_dir=folder),
        kind,
        io.BytesIO(content),
        signature,
        batch_rows=batch_rows,
        batch_bytes=2**23,
        pixels=pixels,
        specification=specification,
    ) as decoder:
        return list(decoder.batches(0))


def parquet_file(columns: Mapping[str, object], **options: object) -> bytes:
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(dict(columns)), content, **options)
    return content.getvalue()


def archive(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return content.getvalue()


def image(pixels: Tensor, format: str = "PNG", mode: str | None = None) -> bytes:
    content = io.BytesIO()
    made = Image.fromarray(pixels)
    (made if mode is None else made.convert(mode)).save(content, format)
    return content.getvalue()


def wrong_of(found: list[Decoded]) -> dict[int, str]:
    return {batch.first_row + row: reason for batch in found for row, reason in batch.wrong.items()}


def test_rows_of_parquet_come_in_order_over_batches_and_row_groups_from_any_row_on(tmp_path: Path):
    numbers = np.arange(2000, dtype=np.float64).reshape(1000, 2)
    content = parquet_file({"name": ["x"] * 1000, "pair": list(numbers)}, row_group_size=300)
    with Decoder(
        RunnerSettings(scratch_dir=tmp_path), PARQUET, io.BytesIO(content), PAIRS, batch_rows=128, batch_bytes=2**20
    ) as decoder:
        for start in (0, 650, 7, 999):
            found = list(decoder.batches(start))
            assert np.array_equal(np.concatenate([batch.tensors["pair"] for batch in found]), numbers[start:])
            assert [batch.first_row for batch in found] == list(
                start + np.cumsum([0, *(batch.rows for batch in found[:-1])])
            )
        assert decoder.rows == 1000


def test_columns_of_single_numbers_are_an_instance_in_their_order(tmp_path: Path):
    content = parquet_file({"b": pyarrow.array([1, 2], pyarrow.int16()), "a": [0.5, 1.5]})
    [batch] = decoded(tmp_path, PARQUET, content, PAIRS)
    assert batch.tensors["pair"].tolist() == [[1, 0.5], [2, 1.5]]


def test_a_row_of_parquet_that_fits_not_fails_alone_with_its_reason(tmp_path: Path):
    content = parquet_file({"pair": [[1.0, 2.0], [3.0], None, [4.0, None], [5.0, 6.0]]})
    [batch] = decoded(tmp_path, PARQUET, content, PAIRS)
    assert batch.tensors["pair"].tolist() == [[1, 2], [5, 6]]
    assert batch.wrong == {
        1: "pair takes 2 values, and the row has 1",
        2: "pair is null",
        3: "pair is null",
    }


def test_numbers_that_the_dtype_cannot_hold_and_texts_are_told_apart(tmp_path: Path):
    [numbers] = decoded(tmp_path, PARQUET, parquet_file({"number": [0, 255, 256, -1, None]}), BYTES)
    assert numbers.tensors["number"].tolist() == [0, 255]
    assert sorted(numbers.wrong) == [2, 3, 4]
    texts = pyarrow.array(["é", None, ""]).dictionary_encode()
    [words] = decoded(tmp_path, PARQUET, parquet_file({"text": texts}), TEXTS)
    assert words.tensors["text"].tolist() == ["é".encode(), b""]
    assert list(words.wrong) == [1]


@pytest.mark.parametrize(
    ("columns", "signature", "code"),
    [
        pytest.param({"pair": ["a", "b"]}, PAIRS, "parquet_columns", id="texts-for-numbers"),
        pytest.param({"number": [0.5]}, BYTES, "parquet_columns", id="fractions-for-integers"),
        pytest.param({"x": [1.0], "y": [1.0], "z": [1.0]}, PAIRS, "parquet_columns", id="three-columns-for-two"),
        pytest.param({"x": [[1.0]], "y": [[1.0]]}, PAIRS, "parquet_columns", id="lists-for-single-numbers"),
        pytest.param({"pair": [{"a": 1}]}, PAIRS, "parquet_columns", id="structures"),
        pytest.param(
            {"open": [[1.0]]},
            Signature((TensorSpec("open", "float32", (None, None)),), OUTPUTS),
            "shape_open",
            id="open",
        ),
    ],
)
def test_a_table_that_leaves_a_choice_is_refused(
    tmp_path: Path, columns: Mapping[str, object], signature: Signature, code: str
):
    with pytest.raises(DecodingFailed) as refusal:
        decoded(tmp_path, PARQUET, parquet_file(columns), signature)
    assert refusal.value.code == code


@pytest.mark.parametrize("kept", [0, 4, 100, -1, -60])
def test_a_truncated_parquet_file_is_refused(tmp_path: Path, kept: int):
    content = parquet_file({"pair": [[float(row), 0.0] for row in range(300)]})
    with pytest.raises(DecodingFailed) as refusal:
        decoded(tmp_path, PARQUET, content[:kept], PAIRS)
    assert refusal.value.code == "parquet_invalid"


def test_a_parquet_file_whose_names_are_no_text_is_refused(tmp_path: Path):
    content = parquet_file({"pair": [[0.0, 1.0]]}).replace(b"pair", b"p\xcbir")
    with pytest.raises(DecodingFailed) as refusal:
        decoded(tmp_path, PARQUET, content, PAIRS)
    assert refusal.value.code == "parquet_invalid"


def test_a_parquet_file_whose_pages_are_broken_is_refused_where_they_are_read(tmp_path: Path):
    numbers = np.random.default_rng(5).random((4000, 2))
    content = bytearray(parquet_file({"pair": list(numbers)}, compression="zstd", use_dictionary=False))
    content[4:4000] = bytes(3996)
    with pytest.raises(DecodingFailed):
        decoded(tmp_path, PARQUET, bytes(content), PAIRS)


def test_kilobytes_of_parquet_that_stand_for_gigabytes_end_as_an_error(tmp_path: Path):
    text = pyarrow.array([b"x" * 2**25], pyarrow.large_binary())
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(1000, np.int32)), text)
    content = parquet_file({"text": column}, compression="zstd", store_schema=False)
    assert len(content) < 100_000
    with pytest.raises(DecodingFailed) as refusal:
        decoded(tmp_path, PARQUET, content, TEXTS, batch_rows=1000)
    assert refusal.value.code == "file_memory"
    assert "row groups" in refusal.value.message


def test_a_row_group_that_announces_more_rows_than_are_taken_is_refused_unread(tmp_path: Path):
    content = parquet_file({"number": pyarrow.array(np.zeros(100_000_001, np.uint8))}, use_dictionary=True)
    with pytest.raises(DecodingFailed) as refusal:
        decoded(tmp_path, PARQUET, content, BYTES)
    assert refusal.value.code == "parquet_too_large"


@pytest.mark.parametrize(("package", "command"), [("pyarrow", parquet_command), ("PIL", images_command)])
def test_a_missing_package_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, package: str, command: Command
):
    # As where it is not installed: importing it fails.
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    terms = {"file": "none", "signature": GREY.to_json(), "pixels": "0-1", "batch_rows": 1, "most_rows": 1}
    terms["specification"] = None
    with pytest.raises(UploadRefused, match=r"sluice-gateway\[files\]") as refusal:
        command({}, terms, {})
    assert refusal.value.code == "format_unavailable"


def test_images_become_instances_in_the_order_of_the_archive(tmp_path: Path):
    pixels = np.random.default_rng(7).integers(0, 256, (5, 2, 3), dtype=np.uint8)
    names = ["b.png", "a.png", "folder/z.webp", "c.PNG", "1"]
    members = {name: image(one, "WEBP" if "webp" in name else "PNG") for name, one in zip(names, pixels, strict=True)}
    members = {"folder/": b"", ".hidden.png": b"", "__MACOSX/b.png": b"", **members}
    members["folder/z.webp"] = image(pixels[2])
    found = decoded(tmp_path, IMAGES, archive(members), GREY, batch_rows=2, pixels="0-1")
    assert [batch.rows for batch in found] == [2, 2, 1]
    assert np.array_equal(np.concatenate([batch.tensors["image"] for batch in found]), pixels / np.float32(255))


def test_colour_comes_from_colour_and_grey_and_nothing_is_made_up(tmp_path: Path):
    colours = np.random.default_rng(7).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    grey = np.full((2, 3), 77, np.uint8)
    members = {
        "rgb.png": image(colours),
        "grey.jpg": image(grey, "JPEG"),
        "transparent.png": image(colours, mode="RGBA"),
        "inks.jpg": image(colours, "JPEG", mode="CMYK"),
        "large.png": image(np.zeros((3, 3), np.uint8)),
        "text.png": b"no image",
        "other.gif": image(grey, "GIF"),
    }
    [batch] = decoded(tmp_path, IMAGES, archive(members), COLOUR)
    assert np.array_equal(batch.tensors["image"][0], colours)
    assert (batch.tensors["image"][1] == 77).all()
    assert sorted(batch.wrong) == [2, 3, 4, 5, 6]
    assert batch.wrong[2].startswith("transparent.png: its mode is RGBA")
    assert batch.wrong[4] == "large.png: it has 3 x 3 pixels, and 3 x 2 are taken"


@pytest.mark.parametrize(
    ("shape", "dtype", "pixels", "code"),
    [
        pytest.param((None, 2, 3), "float32", None, "pixels_unsaid", id="scale-not-said"),
        pytest.param((None, 2, 3), "uint8", "0-1", "pixels_unsaid", id="unit-of-bytes"),
        pytest.param((None, 6), "float32", "0-1", "images_unfit", id="flat"),
        pytest.param((None, None, 3, 3), "float32", "0-1", "images_unfit", id="open"),
        pytest.param((None, 3, 8, 3), "float32", "0-1", "images_unfit", id="channels-at-either-end"),
        pytest.param((None, 2, 3), "int64", "0-255", "images_unfit", id="integers"),
        pytest.param((None, 100_000, 100_000), "uint8", None, "images_unfit", id="gigapixels"),
    ],
)
def test_a_signature_that_leaves_a_choice_takes_no_images(
    tmp_path: Path, shape: tuple[int | None, ...], dtype: str, pixels: str | None, code: str
):
    signature = Signature((TensorSpec("image", dtype, shape),), OUTPUTS)
    with pytest.raises(DecodingFailed) as refusal:
        decoded(tmp_path, IMAGES, archive({}), signature, pixels=pixels)
    assert refusal.value.code == code


def test_channels_may_come_before_rows(tmp_path: Path):
    colours = np.random.default_rng(7).integers(0, 256, (2, 5, 3), dtype=np.uint8)
    signature = Signature((TensorSpec("image", "float32", (None, 3, 2, 5)),), OUTPUTS)
    [batch] = decoded(tmp_path, IMAGES, archive({"a.png": image(colours)}), signature, pixels="0-255")
    assert np.array_equal(batch.tensors["image"][0], colours.transpose(2, 0, 1))


SIZE: dict[str, object] = {"height": 2, "width": 3, "channels": 1}


def test_an_input_specification_says_what_pixels_become(tmp_path: Path):
    pixels = np.array([[0, 51, 255], [255, 0, 51]], np.uint8)
    said = SIZE | {"range": [-1, 1], "mean": [0.5], "std": [0.25]}
    [batch] = decoded(tmp_path, IMAGES, archive({"a.png": image(pixels)}), GREY, said=said)
    expected = np.array([[-6.0, -4.4, 2.0], [2.0, -6.0, -4.4]])
    assert np.allclose(batch.tensors["image"][0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("resize", "expected"),
    [("stretch", [[1, 1, 1], [1, 1, 1]]), ("crop", [[1, 1, 1], [1, 1, 1]]), ("pad", [[0, 1, 0], [0, 1, 0]])],
    ids=["stretch", "crop", "pad"],
)
def test_an_input_specification_says_what_becomes_of_images_of_another_size(
    tmp_path: Path, resize: str, expected: list[list[int]]
):
    # given a white image that is twice as high as the input, and as wide as a third of that
    members = {"high.png": image(np.full((4, 2), 255, np.uint8)), "vast.png": png_of(2**14, 2**14)}
    [batch] = decoded(tmp_path, IMAGES, archive(members), GREY, said=SIZE | {"resize": resize})
    # then it is brought to the input's size, and one that would take gigabytes is not decoded
    assert batch.tensors["image"].tolist() == [expected]
    assert sorted(batch.wrong) == [1]


@pytest.mark.parametrize(
    ("signature", "said"),
    [(GREY, {"height": 3, "width": 2, "channels": 1}), (COLOUR, {"height": 2, "width": 3, "channels": 3})],
    ids=["size", "scaled-bytes"],
)
def test_an_input_specification_that_contradicts_the_signature_reads_nothing(
    tmp_path: Path, signature: Signature, said: dict[str, object]
):
    with pytest.raises(DecodingFailed) as refusal:
        decoded(tmp_path, IMAGES, archive({}), signature, said=said)
    assert refusal.value.code == "images_unfit"


def png_of(width: int, height: int) -> bytes:
    """A header that announces a size, and the beginning of pixels."""
    header = b"IHDR" + struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return head + struct.pack(">I", 100) + b"IDAT"


def test_an_image_that_announces_gigapixels_is_refused_by_its_header(tmp_path: Path):
    members = {"bomb.png": png_of(2**31 - 1, 2**31 - 1), "large.png": png_of(9000, 9000), "cut.png": png_of(3, 2)}
    [batch] = decoded(tmp_path, IMAGES, archive(members), GREY, pixels="0-1")
    assert sorted(batch.wrong) == [0, 1, 2]
    assert "9000 x 9000 pixels" in batch.wrong[1]


def test_an_archive_that_unpacks_to_a_hundred_times_its_size_is_refused(tmp_path: Path):
    with pytest.raises(DecodingFailed) as refusal:
        decoded(tmp_path, IMAGES, archive({"a.png": bytes(2**25)}), GREY, pixels="0-1")
    assert refusal.value.code == "zip_ratio"


def test_an_archive_whose_members_share_their_bytes_is_refused(tmp_path: Path):
    content = archive({"a.png": np.random.default_rng(5).bytes(5000)}, zipfile.ZIP_STORED)
    at = content.index(b"PK\x01\x02")
    directory, end = content[at:-22], bytearray(content[-22:])
    struct.pack_into("<HHL", end, 8, 3, 3, 3 * len(directory))
    with pytest.raises(DecodingFailed) as refusal:
        decoded(tmp_path, IMAGES, content[:at] + 3 * directory + bytes(end), GREY, pixels="0-1")
    assert refusal.value.code == "zip_invalid"


def test_members_that_lie_about_themselves_fail_alone(tmp_path: Path):
    good = image(np.full((2, 3), 9, np.uint8))
    content = bytearray(archive({"a.png": good, "b.png": good, "c.png": good}, zipfile.ZIP_STORED))
    first, second = (content.index(b"PK\x01\x02", start) for start in (0, content.index(b"PK\x01\x02") + 4))
    content[first + 8] |= 1  # encrypted
    struct.pack_into("<L", content, second + 16, 0)  # another checksum
    [batch] = decoded(tmp_path, IMAGES, bytes(content), GREY, pixels="0-255")
    assert sorted(batch.wrong) == [0, 1]
    assert batch.tensors["image"].tolist() == [[[9] * 3] * 2]


@pytest.mark.parametrize("kept", [0, 10, -5])
def test_a_truncated_archive_is_refused(tmp_path: Path, kept: int):
    content = archive({"a.png": image(np.zeros((2, 3), np.uint8))})
    with pytest.raises(DecodingFailed) as refusal:
        decoded(tmp_path, IMAGES, content[:kept], GREY, pixels="0-1")
    assert refusal.value.code == "zip_invalid"


def test_a_reading_goes_on_behind_its_checkpoint_and_every_row_is_told_once(tmp_path: Path):
    rows: list[list[float] | None] = [[float(row), 0.0] for row in range(500)]
    rows[0] = rows[137] = rows[138] = rows[499] = None
    content = io.BytesIO(parquet_file({"pair": rows}, row_group_size=120))
    format = DecodedFormat(PARQUET, settings=lambda: RunnerSettings(scratch_dir=tmp_path))
    contract, size = Contract("pair", 1, PAIRS, max_instances=1000), ChunkSize(64, 2**20, 2**20)
    first, second, *_ = format.chunks(content, contract, size, None)
    behind = format.chunks(content, contract, size, second.checkpoint)
    found: list[int] = []
    for chunk in [first, second, *behind]:
        assert isinstance(chunk.data, bytes)
        assert (chunk.first_row, chunk.total) == (len(found), 500)
        for piece in format.pieces(Asked(chunk.first_row, chunk.rows, chunk.data, chunk.terms), contract):
            assert piece.first_row == len(found)
            if isinstance(piece, Refused):
                assert json.loads(piece.line)["error"]["message"] == "pair is null"
                found.append(-1)
            else:
                found += [int(number) for number in piece.tensors["pair"][:, 0].tolist()]
    assert found == [-1 if row is None else number for number, row in enumerate(rows)]
