"""The models that all servers run: `python -m benchmarks.peers.models DEMO FOLDER` writes them as Keras and ONNX files.

`digits` is the demo's trained network, taken from the folder DEMO of a data folder; `photographs` is MobileNetV2 with
random weights. A file that is there is complete and is left as it is.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.workload import DIGITS, PHOTOGRAPHS
from sluice.trained import Trained

if TYPE_CHECKING:
    import keras

SEED = 7
# The name of both models' input.
IMAGE = "image"
# The last layer of random weights says almost the same of every image; enlarged, a mixed-up answer is noticed.
GAIN = 200.0


def export(demo: Path, folder: Path) -> None:
    """Write what is missing of both models, training the demo's first where nobody has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (DIGITS, PHOTOGRAPHS):
        if not (folder / f"{name}.onnx").exists():
            model = trained(demo) if name == DIGITS else random_network()
            save(model, folder / name)


def trained(demo: Path) -> keras.Model:
    """The demo's network for digits."""
    import keras

    if Trained.read(demo) is None:
        from sluice.demo_training import train

        demo.mkdir(parents=True, exist_ok=True)
        train(demo)
    return keras.saving.load_model(demo / "mnist.keras")


def random_network() -> keras.Model:
    """MobileNetV2 for images of 224x224x3."""
    import keras

    keras.utils.set_random_seed(SEED)
    network = keras.applications.MobileNetV2(weights=None, input_tensor=keras.Input((224, 224, 3), name=IMAGE))
    kernel = network.layers[-1].kernel
    kernel.assign(kernel * GAIN)
    return network


def save(model: keras.Model, path: Path) -> None:
    """Write the model as `.keras` and as `.onnx`, whose number of images a call is free."""
    import numpy as np

    # Keras exports only what has been called.
    model(np.zeros((1, *model.input_shape[1:]), np.float32))
    unfinished = path.with_name("unfinished")
    model.save(unfinished.with_suffix(".keras"))
    model.export(unfinished.with_suffix(".onnx"), format="onnx", verbose=False)
    for suffix in (".keras", ".onnx"):
        shutil.move(unfinished.with_suffix(suffix), path.with_suffix(suffix))


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
