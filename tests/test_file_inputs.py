"""Files become instances in a runner, by the input specification; hostile and damaged ones end as clear refusals."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from model_store.signature import Signature, TensorSpec
from tests.file_kit import image, recording
from tests.test_decoding import archive
from workers.decoding import file_runner
from workers.decoding.decoder import IMAGES, Decoder
from workers.decoding.file_runner import FileRunner
from workers.decoding.recordings import resampled
from workers.errors import DecodingAway, InputInvalid
from workers.protocols import tensorflow_serving
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract
from workers.protocols.dialects import GRAMMARS
from workers.protocols.file_reading import UNREAD
from workers.protocols.files import body_of
from workers.settings import RunnerSettings

OUTPUTS = (TensorSpec("y", "float32", (None, 1)),)
GREY = TensorSpec("x", "float32", (None, 4, 6))
COLOUR = TensorSpec("x", "float32", (None, 4, 6, 3))
SOUND = TensorSpec("x", "float32", (None, 80))
PIXELS = np.random.default_rng(7).integers(0, 256, (4, 6, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileRunner]:
    made = FileRunner(RunnerSettings(scratch_dir=tmp_path_factory.mktemp("runners")))
    yield made
    made.close()


def said(spec: TensorSpec, **more: object) -> dict[str, object]:
    """An input specification of an image that an input of this shape takes."""
    shape = spec.shape[1:]
    plain = {"kind": "image", "resize": "none", "range": [0, 1], "channels": 3 if len(shape) == 3 else 1}
    return plain | {"height": shape[0], "width": shape[1]} | more


def heard(**more: object) -> dict[str, object]:
    return {"kind": "audio", "sample_rate": 800, "channels": 1, "range": [-1, 1]} | more


def contract(reader: object, specification: dict[str, object] | None, *specs: TensorSpec) -> Contract:
    text = None if specification is None else json.dumps(specification)
    found = Contract("m", 1, Signature(specs or (GREY,), OUTPUTS), 1000)
    return replace(found, input_specification=text, files=reader)  # type: ignore[arg-type]


def read(terms: Contract, *files: bytes | tuple[str, bytes]) -> np.ndarray:
    """The first input's tensor of files that came as whole bodies."""
    sent = [one if isinstance(one, tuple) else (None, one) for one in files]
    return GRAMMARS[Dialect.FILES].parse(body_of(sent), terms).tensors[terms.signature.inputs[0].name]


def refusal(terms: Contract, *files: bytes | tuple[str, bytes]) -> str:
    with pytest.raises(InputInvalid) as found:
        read(terms, *files)
    return found.value.message


def png_of(width: int, height: int, depth: int = 8) -> bytes:
    """A PNG's beginning that announces a size, and a little of what would follow."""
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("spec", "more"),
    [
        pytest.param(GREY, {"range": [0, 1]}, id="grey"),
        pytest.param(COLOUR, {"range": [-1, 1], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 0.2]}, id="colour"),
        pytest.param(COLOUR, {"resize": "crop"}, id="resized"),
        pytest.param(TensorSpec("x", "uint8", (None, 4, 6, 3)), {"range": [0, 255]}, id="bytes"),
        pytest.param(TensorSpec("x", "float16", (None, 3, 4, 6)), {"height": 4, "width": 6}, id="channels-first"),
    ],
)
def test_an_image_alone_has_the_bits_that_it_has_in_an_archive(
    reader: FileRunner, tmp_path: Path, spec: TensorSpec, more: dict[str, object]
):
    size = (9, 7) if "resize" in more else (6, 4)
    pixels = np.random.default_rng(8).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    content = image(pixels[..., 0] if spec is GREY else pixels)
    specification = said(spec, **more)
    with Decoder(
        RunnerSettings(scratch_dir=tmp_path),
        IMAGES,
        io.BytesIO(archive({"a.png": content})),
        Signature((spec,), OUTPUTS),
        batch_rows=1,
        batch_bytes=2**20,
        specification=json.dumps(specification),
    ) as decoder:
        [batch] = decoder.batches(0)
    alone = read(contract(reader, specification, spec), content)
    assert alone.dtype == spec.numpy_dtype()
    assert alone.tobytes() == batch.tensors["x"].tobytes()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_every_format_is_read_whatever_it_is_called(reader: FileRunner, format: str):
    plain = np.full((4, 6, 3), 77, np.uint8)
    [found] = read(contract(reader, said(COLOUR, range=[0, 255]), COLOUR), image(plain, format))
    assert np.abs(found - 77).max() <= 2


def test_orientation_by_exif_is_not_applied(reader: FileRunner):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    terms = contract(reader, said(COLOUR), COLOUR)
    assert np.array_equal(read(terms, image(PIXELS, exif=exif)), read(terms, image(PIXELS)))


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "announces-gigapixels": (lambda: png_of(50_000, 50_000), "50000 x 50000 pixels"),
    "announces-nothing": (lambda: png_of(0, 0), "0 x 0 pixels"),
    "another-size": (lambda: image(np.zeros((5, 6, 3), np.uint8)), "it has 6 x 5 pixels, and 6 x 4 are taken"),
    "inks": (lambda: image(PIXELS, "JPEG", mode="CMYK"), "its mode is CMYK"),
    "alpha": (lambda: image(PIXELS, mode="RGBA"), "its mode is RGBA"),
    "grey-of-16-bits": (lambda: image(np.zeros((4, 6), np.uint16)), "its mode is I;16"),
    "colour-of-16-bits": (lambda: deep_colour(), "16 bits a channel"),
    "transparent-palette": (lambda: image(PIXELS, mode="P", transparency=0), "transparency"),
    "animated": (lambda: animated("WEBP"), "animated"),
    "animated-png": (lambda: animated("PNG"), "animated"),
    "truncated": (lambda: image(PIXELS)[:70], "no PNG, JPEG, WEBP image that can be read"),
    "empty": (lambda: b"", "an empty file"),
    "a-gif": (lambda: image(PIXELS, "GIF"), "begins otherwise"),
    "a-recording": (lambda: recording(np.zeros(10), 800), "begins as WAV"),
}  # fmt: skip


def deep_colour() -> bytes:
    """A PNG of 16 bits a channel, which Pillow writes in grey only."""
    head = struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(6 * 3 * 2) for _ in range(4))
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def animated(format: str) -> bytes:
    made = io.BytesIO()
    first, second = (Image.fromarray(pixels) for pixels in (PIXELS, 255 - PIXELS))
    first.save(made, format, save_all=True, append_images=[second], duration=100)
    return made.getvalue()


@pytest.mark.parametrize("name", list(HOSTILE))
def test_what_is_no_plain_image_of_the_size_is_refused_with_its_reason(reader: FileRunner, name: str):
    make, words = HOSTILE[name]
    terms = contract(reader, said(COLOUR), COLOUR)
    message = refusal(terms, ("x", image(PIXELS)), ("x", make()))
    assert message.startswith("x[1]: "), message
    assert words in message


def test_kilobytes_that_unpack_to_megabytes_are_not_unpacked(reader: FileRunner):
    bomb = image(np.zeros((5000, 4000), np.uint8))
    assert len(bomb) < 30_000
    terms = contract(reader, said(GREY, resize="stretch"))
    assert "pixels" in refusal(terms, bomb)
    smaller = image(np.zeros((4096, 4096, 3), np.uint8))
    assert "200 times" in refusal(contract(reader, said(COLOUR, resize="stretch"), COLOUR), smaller)


def test_files_that_become_too_many_numbers_together_are_not_decoded(reader: FileRunner):
    large = TensorSpec("x", "float32", (None, 1024, 1024, 3))
    terms = contract(reader, said(large, resize="stretch"), large)
    assert "67,108,864 bytes of numbers" in refusal(terms, *[("x", image(PIXELS))] * 6)


def test_more_files_than_instances_that_are_taken_are_refused(reader: FileRunner):
    terms = replace(contract(reader, said(COLOUR), COLOUR), max_instances=2)
    assert "at most 2" in refusal(terms, *[("x", image(PIXELS))] * 3)


def test_a_specification_that_contradicts_the_signature_is_told(reader: FileRunner):
    assert "input specification says 9 x 6 x 3" in refusal(
        contract(reader, said(COLOUR, height=9), COLOUR), image(PIXELS)
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_gives_an_instance_or_a_refusal_and_nothing_dies(reader: FileRunner, data: st.DataObject):
    kind = data.draw(st.sampled_from(list(WHOLE_FILES)))
    content = bytearray(WHOLE_FILES[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    spec, specification = (SOUND, heard()) if kind in ("WAV", "FLAC") else (COLOUR, said(COLOUR))
    terms = contract(reader, specification, spec)
    runner = reader.pid
    with contextlib.suppress(InputInvalid):
        found = read(terms, bytes(content))
        assert found.shape == (1, *spec.shape[1:])
        assert np.isfinite(found).all()
    assert len(read(terms, WHOLE_FILES[kind])) == 1
    assert reader.pid == runner or runner is None


WHOLE_FILES = {
    **{kind: image(PIXELS, kind) for kind in ("PNG", "JPEG", "WEBP")},
    **{kind: recording(np.sin(np.arange(60) / 5), 800, kind) for kind in ("WAV", "FLAC")},
}


def test_recordings_are_mixed_down_cut_and_filled(reader: FileRunner):
    terms = contract(reader, heard(seconds=0.1), SOUND)
    # in steps that 16 bits hold
    left, right = np.arange(-50, 50) * 256 / 2**15, np.zeros(100)
    long, short = recording(np.stack([left, right], 1), 800), recording(left[:30], 800, "FLAC")
    found = read(terms, ("x", long), ("x", short))
    assert np.array_equal(found[0], (left[:80] / 2).astype(np.float32))
    assert np.array_equal(found[1], np.pad(left[:30], (0, 50)).astype(np.float32))


@pytest.mark.parametrize(("rate", "wanted"), [(800, 300), (300, 800), (801, 800), (44_100, 16_000)])
def test_resampling_is_scipys_fourier_method(rate: int, wanted: int):
    frames = np.random.default_rng(3).normal(size=(rate // 3, 2))
    count = round(len(frames) * wanted / rate)
    assert np.allclose(resampled(frames, rate, wanted), scipy.signal.resample(frames, count, axis=0), atol=1e-9)


def test_a_tone_keeps_its_pitch_at_another_rate(reader: FileRunner):
    spec = TensorSpec("x", "float32", (None, 8000))
    tone = np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100) * 0.5
    [found] = read(contract(reader, heard(sample_rate=8000, seconds=1), spec), recording(tone, 44_100))
    assert np.abs(np.fft.rfft(found)).argmax() == 440


def test_a_free_length_is_that_of_the_file_and_all_of_a_request_have_it(reader: FileRunner):
    terms = contract(reader, heard(range=[0, 1]), TensorSpec("x", "float64", (None, None)))
    assert read(terms, recording(np.zeros(33), 800)).tolist() == [[0.5] * 33]
    assert "x[1]: it has 34 samples" in refusal(
        terms, ("x", recording(np.zeros(33), 800)), ("x", recording(np.zeros(34), 800))
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(lambda: recording(np.zeros((9, 9)), 800), "9 channels", id="channels"),
        pytest.param(lambda: recording(np.zeros(9), 100_000), "too far from 800", id="rate"),
        pytest.param(lambda: recording(np.zeros(0), 800), "no samples", id="empty"),
        pytest.param(lambda: recording(np.zeros(9), 800)[:20], "no WAV or FLAC", id="truncated"),
        pytest.param(lambda: b"RIFF\0\0\0\0WEBP", "begins as WebP", id="image"),
    ],
)  # fmt: skip
def test_a_recording_that_is_none_is_refused(reader: FileRunner, content: Callable[[], bytes], words: str):
    assert words in refusal(contract(reader, heard(seconds=0.1), SOUND), content())


def test_a_strip_that_would_be_no_pixel_wide_is_refused_rather_than_answered_as_black(reader: FileRunner):
    strip = np.full((1, 100, 3), 255, np.uint8)
    terms = contract(reader, said(COLOUR, resize="pad"), COLOUR)
    assert "nothing would be left" in refusal(terms, image(strip))
    assert read(terms, image(strip[:, :11])).any()


def test_what_is_longer_than_the_input_is_cut_before_it_is_resampled(reader: FileRunner):
    frames = np.round(np.random.default_rng(4).uniform(-0.5, 0.5, 300) * 2**15) / 2**15
    [found] = read(contract(reader, heard(), SOUND), recording(frames, 1600))
    assert np.allclose(found, scipy.signal.resample(frames[:160], 80), atol=1e-6)


def test_channels_count_among_the_samples_that_are_taken(reader: FileRunner):
    eight = TensorSpec("x", "float32", (None, None, 8))
    silence = recording(np.zeros((600_000, 8), np.int16), 801, "FLAC")
    terms = contract(reader, heard(channels=8), eight)
    assert "4,194,304 samples" in refusal(terms, silence)


def test_a_stream_of_unknown_length_is_read_where_the_input_says_how_much(reader: FileRunner):
    frames = np.arange(100) / 2**15
    stream = bytearray(recording(frames, 800, "FLAC"))
    # the number of samples, 36 bits of the first block (RFC 9639, section 8.2): 0 is unknown
    stream[21:26] = bytes([stream[21] & 0xF0]) + bytes(4)
    assert np.array_equal(read(contract(reader, heard(), SOUND), bytes(stream))[0], frames[:80].astype(np.float32))
    free = contract(reader, heard(), TensorSpec("x", "float32", (None, None)))
    assert "does not say how long" in refusal(free, bytes(stream))


def test_an_hour_of_silence_in_kilobytes_is_not_unpacked(reader: FileRunner):
    silence = recording(np.zeros(6_000_000, np.int16), 800, "FLAC")
    assert len(silence) < 100_000
    assert "7500 seconds" in refusal(contract(reader, heard(), TensorSpec("x", "float32", (None, None))), silence)


def test_the_gateway_refuses_by_the_beginning_and_decodes_nothing():
    terms = contract(UNREAD, said(COLOUR), COLOUR)
    assert "50000 x 50000" in refusal(terms, png_of(50_000, 50_000))
    assert "begins otherwise" in refusal(terms, b"nothing")
    # what only decoding can tell is a worker's to tell
    assert read(terms, image(PIXELS)[:60]).shape == (1, 4, 6, 3)


def test_two_inputs_come_in_parts_of_a_form_and_numbers_as_json(reader: FileRunner):
    age = TensorSpec("age", "float32", (None,))
    terms = contract(reader, said(GREY, input="x"), GREY, age)
    parts: Sequence[tuple[str, bytes]] = [
        ("x", image(PIXELS[..., 0])),
        ("age", b"4.5"),
        ("x", image(PIXELS[..., 1])),
        ("age", b"7"),
    ]
    request = GRAMMARS[Dialect.FILES].parse(body_of(parts), terms)
    assert request.instances == 2
    assert request.tensors["age"].tolist() == [4.5, 7.0]
    assert np.allclose(request.tensors["x"][1] * 255, PIXELS[..., 1])
    assert "send a form" in refusal(terms, parts[0][1])
    assert "same number" in refusal(terms, *parts[:3])
    coded = base64.b64encode(parts[0][1]).decode()
    rows = json.dumps({"instances": [{"x": {"b64": coded}, "age": 4.5}]}).encode()
    assert np.array_equal(tensorflow_serving.parse(Body(rows), terms).tensors["x"], request.tensors["x"][:1])


def test_a_runner_that_was_killed_is_followed_by_another(reader: FileRunner):
    terms = contract(reader, said(COLOUR), COLOUR)
    before = read(terms, image(PIXELS))
    assert reader.pid is not None
    os.kill(reader.pid, signal.SIGKILL)
    assert np.array_equal(read(terms, image(PIXELS)), before)


def test_threads_share_a_runner_and_each_gets_its_own(reader: FileRunner):
    terms = contract(reader, said(GREY, range=[0, 255]))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda grey: read(terms, image(np.full((4, 6), grey, np.uint8))), range(60)))
    assert [int(one.max()) for one in found] == list(range(60))


def test_where_no_runner_may_decode_nothing_else_does(tmp_path: Path):
    (tmp_path / "file").touch()
    roomless = FileRunner(RunnerSettings(scratch_dir=tmp_path / "file"))
    with pytest.raises(DecodingAway):
        read(contract(roomless, said(COLOUR), COLOUR), image(PIXELS))


def test_a_start_that_failed_is_followed_by_a_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "scratch"
    folder.touch()
    resting = FileRunner(RunnerSettings(scratch_dir=folder))
    terms = contract(resting, said(COLOUR), COLOUR)
    monkeypatch.setattr(file_runner, "REST_SECONDS", 3600.0)
    with pytest.raises(DecodingAway):
        read(terms, image(PIXELS))
    folder.unlink()
    folder.mkdir()
    with pytest.raises(DecodingAway):
        read(terms, image(PIXELS))
    assert resting.pid is None
