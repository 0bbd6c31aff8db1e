"""How a recording becomes an instance: by the version's input specification, in numbers alone.

Of one that is too long, no more than the beginning that is needed is read. Channels are mixed down to their mean, where
the input has one and the file has several. Another sample rate is met by the Fourier method: the spectrum of what was
read is cut, or continued with zeros, so that nothing below half of either rate changes and nothing above it folds back.
What is too short is filled with silence behind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.signature import Tensor, TensorSpec
from workers.decoding.rows import refused

# Of one recording, all channels of the input together, as it is resampled: transforms of so many take half a second,
# and more than one where the number of frames has large factors.
MOST_SAMPLES = 4 * 1024**2
MOST_CHANNELS = 8
# Between the rates of the file and the input: beyond, a second of one is minutes of the other.
MOST_RATE_RATIO = 64
# libsndfile's number for a FLAC whose writer did not know its length, as one that writes into a pipe, is beyond this;
# those that are announced are not.
UNSAID_FRAMES = 2**40
INTEGERS = "iu"

Frames = npt.NDArray[np.float64]
"""Shape (frames, channels), from -1 to 1."""


class RecordingUnfit(Exception):
    """A recording that is no instance of the input; the message says why."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Recordings as instances of shape (samples,) or (samples, channels); `samples` is None where any length does."""

    name: str
    dtype: str
    sample_rate: int
    channels: int
    samples: int | None
    flat: bool
    range: tuple[float, float]

    @classmethod
    def of(cls, spec: TensorSpec, specification: str) -> Recording:
        """By an input specification of a recording, as JSON.

        Raises UploadRefused (recordings_unfit) where the input is no [batch, samples] or [batch, samples, channels] of
        numbers, or contradicts the specification.
        """
        said: dict[str, Any] = json.loads(specification)
        shape = spec.shape[1:]
        numbers = spec.numpy_dtype().kind in "f" + INTEGERS
        channels = said["channels"]
        if not spec.batched or not numbers or len(shape) not in (1, 2) or (*shape, 1)[1] != channels:
            raise refused(
                "recordings_unfit",
                f"recordings of {channels} channels are taken where an input is [batch, samples] or "
                f"[batch, samples, {channels}] of numbers; it has {list(spec.shape)}",
            )
        seconds, samples = said.get("seconds"), shape[0]
        if seconds is not None:
            wanted = round(seconds * said["sample_rate"])
            if samples not in (None, wanted):
                raise refused(
                    "recordings_unfit",
                    f"the input specification says {wanted} samples, but the version takes {samples}",
                )
            samples = wanted
        low, high = said["range"]
        return cls(spec.name, spec.dtype, said["sample_rate"], channels, samples, len(shape) == 1, (low, high))

    def frames_needed(self, rate: int, available: int) -> int:
        """How many frames of a file are read; raises RecordingUnfit where they would be too many."""
        if not self.sample_rate <= rate * MOST_RATE_RATIO or not rate <= self.sample_rate * MOST_RATE_RATIO:
            raise RecordingUnfit(f"it has {rate} samples a second, which is too far from {self.sample_rate}")
        needed = available
        if self.samples is not None:
            needed = min(available, -(-self.samples * rate // self.sample_rate))
        if max(needed, needed * self.sample_rate // rate) * self.channels > MOST_SAMPLES:
            if available >= UNSAID_FRAMES:
                raise RecordingUnfit("it does not say how long it is, and the model takes any length")
            raise RecordingUnfit(f"it is {available / rate:.0f} seconds long; {MOST_SAMPLES:,} samples are taken")
        return needed

    def instance(self, frames: Frames, rate: int) -> Tensor:
        """An instance of frames from -1 to 1, shape (frames, channels of the file), at a rate."""
        mixed = resampled(self._mixed(frames), rate, self.sample_rate)
        if self.samples is not None:
            missing = max(self.samples - len(mixed), 0)
            mixed = np.pad(mixed[: self.samples], ((0, missing), (0, 0)))
        low, high = self.range
        if (low, high) != (-1.0, 1.0):
            mixed = low + (mixed + 1) / 2 * (high - low)
        if np.dtype(self.dtype).kind in INTEGERS:
            bounds = np.iinfo(self.dtype)
            mixed = np.clip(np.rint(mixed), bounds.min, bounds.max)
        values = mixed.astype(self.dtype)
        return values[:, 0] if self.flat else values

    def _mixed(self, frames: Frames) -> Frames:
        if frames.shape[1] == self.channels:
            return frames
        if self.channels == 1:
            mean: Frames = frames.mean(axis=1, keepdims=True)
            return mean
        raise RecordingUnfit(f"it has {frames.shape[1]} channels, and {self.channels} are taken")


def resampled(frames: Frames, rate: int, wanted: int) -> Frames:
    """Frames at one rate as frames at another, by the Fourier method; shape (frames, channels)."""
    count = round(len(frames) * wanted / rate)
    if rate == wanted or not count:
        return frames[:count]
    kept = min(len(frames), count)
    spectrum = np.fft.rfft(frames, axis=0)[: kept // 2 + 1]
    if kept % 2 == 0:
        # The one at half of the lower rate stands for two, its own and its mirror's.
        spectrum[-1] *= 2 if count < len(frames) else 0.5
        if count < len(frames):
            spectrum[-1] = spectrum[-1].real
    found: Frames = np.fft.irfft(spectrum, count, axis=0) * (count / len(frames))
    return found
