"""The demo's tone classifier: by what kind of wave a tone was made, learned from tones that are made here."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from sluice.demo_descriptions import WAVES

SAMPLE_RATE = 8000
SECONDS = 0.5
SAMPLES = int(SAMPLE_RATE * SECONDS)
LOWEST_HERTZ, HIGHEST_HERTZ = 110.0, 880.0
COUNT = 1500
HELD_OUT = 300
EPOCHS = 8


def tones(count: int, random: np.random.Generator) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """So many tones of half a second, float32 (count, SAMPLES) from -1 to 1, and the number of each one's wave.

    Pitch, loudness and phase are anything, and each has a little hiss.
    """
    waves = random.integers(0, len(WAVES), count)
    return np.stack([tone(WAVES[wave], random) for wave in waves]), waves.astype("int64")


def tone(wave: str, random: np.random.Generator) -> np.ndarray[Any, Any]:
    """One tone of a wave, float32 (SAMPLES,)."""
    hertz = LOWEST_HERTZ * (HIGHEST_HERTZ / LOWEST_HERTZ) ** random.random()
    # Where in its period each sample is, from 0 to 1.
    place = (np.arange(SAMPLES) * hertz / SAMPLE_RATE + random.random()) % 1
    shapes = {
        "sine": np.sin(2 * np.pi * place),
        "triangle": 4 * np.abs(place - 0.5) - 1,
        "square": np.where(place < 0.5, 1.0, -1.0),
        "sawtooth": 2 * place - 1,
        "noise": random.uniform(-1, 1, SAMPLES),
    }
    hiss = random.normal(scale=0.02 * random.random(), size=SAMPLES)
    made: np.ndarray[Any, Any] = np.clip(random.uniform(0.2, 0.9) * shapes[wave] + hiss, -1, 1).astype("float32")
    return made


def trained(
    seed: int, callbacks: list[keras.callbacks.Callback]
) -> tuple[keras.Model, float, np.ndarray[Any, Any], str]:
    """A model from samples to probabilities, its accuracy on held-out tones, one of those and its wave."""
    samples, waves = tones(COUNT, np.random.default_rng(seed))
    network = keras.Sequential(
        [
            keras.Input((SAMPLES,), name="samples"),
            keras.layers.MelSpectrogram(
                fft_length=512, sequence_stride=256, sequence_length=512, sampling_rate=SAMPLE_RATE, num_mel_bins=40
            ),
            keras.layers.Permute((2, 1)),
            keras.layers.LayerNormalization(),
            keras.layers.Conv1D(24, 3, activation="relu"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(len(WAVES), activation="softmax", name="wave"),
        ]
    )
    network.compile(
        optimizer=keras.optimizers.Adam(0.005), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    network.fit(samples[HELD_OUT:], waves[HELD_OUT:], batch_size=64, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    _, accuracy = network.evaluate(samples[:HELD_OUT], waves[:HELD_OUT], verbose=0)
    # Noise is no tone to show.
    example = int(np.flatnonzero(waves[:HELD_OUT] != WAVES.index("noise"))[0])
    return network, float(accuracy), samples[example], WAVES[waves[example]]
