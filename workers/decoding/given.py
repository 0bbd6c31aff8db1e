"""Commands of the child: files that a request brought as instances of an input, all or none of them."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from model_store.signature import Signature, Tensor, Tensors, TensorSpec
from workers.decoding.images import ImageUnfit, pixels_of
from workers.decoding.layout import Layout
from workers.decoding.recordings import MOST_CHANNELS, Recording, RecordingUnfit
from workers.decoding.rows import refused

FILES, VALUES = "files", "values"
IMAGE, AUDIO = "image", "audio"
# What libsndfile may take the bytes for: it knows thirty formats more.
MARKS = {b"fLaC": ("FLAC",), b"RIFF": ("WAV", "WAVEX")}

Read = Callable[[bytes], Tensor]


def read_files(_held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """`files` (strings) as `values`, shape (files, *instance), by the only input of `signature` and `specification`.

    Where one cannot be read, `wrong` is its number and why, and no values come. Raises UploadRefused where the two
    contradict each other, or where a package is missing (format_unavailable).
    """
    [spec] = Signature.from_json(arguments["signature"]).inputs
    read = READERS[arguments["kind"]](spec, arguments["specification"])
    found: list[Tensor] = []
    size_bytes = 0
    for number, content in enumerate(tensors[FILES].tolist()):
        try:
            found.append(read(content))
        except (ImageUnfit, RecordingUnfit) as error:
            return {"wrong": [number, str(error)]}, {}
        size_bytes += found[-1].nbytes
        if size_bytes > arguments["most_bytes"]:
            return {"wrong": [number, f"all together are more than {arguments['most_bytes']:,} bytes of numbers"]}, {}
        if found[-1].shape != found[0].shape:
            return {"wrong": [number, f"it has {len(found[-1])} samples, and the first one {len(found[0])}"]}, {}
    return {}, {VALUES: np.stack(found)}


def _images(spec: TensorSpec, specification: str) -> Read:
    try:
        import PIL.Image  # noqa: F401 - to say now what is missing
    except ImportError:
        raise refused("format_unavailable", "images need Pillow: pip install 'sluice-gateway[media]'") from None
    layout = Layout.of(Signature((spec,), ()), None, specification)

    def read(content: bytes) -> Tensor:
        return layout.scaled(pixels_of(content, layout))

    return read


def _recordings(spec: TensorSpec, specification: str) -> Read:
    try:
        import soundfile  # noqa: F401 - as above
    except (ImportError, OSError):
        raise refused("format_unavailable", "recordings need soundfile: pip install 'sluice-gateway[media]'") from None
    return functools.partial(_instance, recording=Recording.of(spec, specification))


def _instance(content: bytes, recording: Recording) -> Tensor:
    import soundfile

    formats = MARKS.get(content[:4], ())
    unread = RecordingUnfit("it is no WAV or FLAC that can be read")
    if not formats:
        raise unread
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if file.format not in formats:
                raise unread
            if file.channels > MOST_CHANNELS:
                raise RecordingUnfit(f"it has {file.channels} channels, and at most {MOST_CHANNELS} are taken")
            needed = recording.frames_needed(file.samplerate, file.frames)
            frames = file.read(needed, dtype="float64", always_2d=True)
            rate = file.samplerate
    except (soundfile.SoundFileError, OSError, ValueError, TypeError, OverflowError):
        raise unread from None
    if not len(frames):
        raise RecordingUnfit("it has no samples")
    return recording.instance(np.nan_to_num(frames, posinf=1.0, neginf=-1.0), rate)


READERS: dict[str, Callable[[TensorSpec, str], Read]] = {IMAGE: _images, AUDIO: _recordings}
