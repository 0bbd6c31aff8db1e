"""Saves SavedModels into a folder, with TensorFlow's own answers: `python -m tests.savedmodels FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

ROWS = 5


class Scorer(tf.Module):
    """Two signatures: `serving_default` of numbers, and `names`, which looks texts up in a table."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable([[1.0], [2.0], [3.0]])
        keys, values = tf.constant(["red", "green"]), tf.constant([1.0, 2.0])
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "features")])
    def score(self, features: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = features @ self.weights
        return {"score": scores, "above": scores > 1.0}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "colour")])
    def names(self, colour: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"value": self.table.lookup(tf.strings.lower(colour)), "echo": tf.strings.join(["<", colour, ">"])}


class Several(tf.Module):
    """Signatures of the same tensors and of others, one that classifies, and some that cannot be served."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def doubled(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x * 2.0}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def tripled(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x * 3.0}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "word"), tf.TensorSpec([None], tf.int64, "number")])
    def joined(self, word: tf.Tensor, number: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"text": tf.strings.join([word, tf.strings.as_string(number)], "-"), "next": number + 1}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def classified(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": x + 0.5, "classes": tf.tile([["left", "right"]], [tf.shape(x)[0], 1])}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def drawn(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x + tf.random.uniform(tf.shape(x))}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, "x")])
    def single(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x + 1.0}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def failing(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.debugging.check_numerics(tf.math.log(x - 2.0), "out of its range")}


class Writer(tf.Module):
    """Writes a file whenever it is asked: one of TensorFlow's operators is enough."""

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
    def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.io.write_file("written.txt", "here")]):
            return {"y": x + 1.0}


class Reader(tf.Module):
    """The same within a branch, which is a function of its own."""

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
    def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        length = tf.cond(
            tf.reduce_sum(x) > 0.0,
            lambda: tf.strings.length(tf.io.read_file("/etc/hostname")),
            lambda: tf.constant(0),
        )
        return {"y": x + tf.cast(length, tf.float32)}


class Parser(tf.Module):
    """Takes serialized examples and classifies them, as TensorFlow Serving's own models do."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        features = {
            "x": tf.io.FixedLenFeature([2], tf.float32),
            "bias": tf.io.FixedLenFeature([], tf.int64, 0),
            "words": tf.io.VarLenFeature(tf.string),
        }
        found = tf.io.parse_example(inputs, features)
        scores = found["x"] + tf.cast(found["bias"], tf.float32)[:, None]
        return {"scores": scores, "classes": tf.tile([["left", "right"]], [tf.shape(scores)[0], 1])}


class Plain(tf.Module):
    """Without any signature."""

    @tf.function
    def run(self, x: tf.Tensor) -> tf.Tensor:
        return x + 1.0


def _two_branches() -> keras.Model:
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    joined = keras.layers.Concatenate()([keras.layers.Dense(5, "relu")(left), right])
    return keras.Model([left, right], {"price": keras.layers.Dense(2)(joined)})


def main(folder: Path) -> None:
    keras.utils.set_random_seed(7)
    random = np.random.default_rng(7)
    scorer = Scorer()
    tf.saved_model.save(scorer, folder / "scorer", signatures={"serving_default": scorer.score, "names": scorer.names})
    tf.saved_model.save(scorer, folder / "unnamed", signatures={"first": scorer.score, "second": scorer.names})
    tf.saved_model.save(scorer, folder / "numbers", signatures={"serving_default": scorer.score})
    several = Several()
    signatures = {"serving_default": several.doubled, "again": several.doubled, "tripled": several.tripled}
    signatures |= {"joined": several.joined, "classify": several.classified, "drawn": several.drawn}
    signatures |= {"single": several.single, "failing": several.failing}
    tf.saved_model.save(several, folder / "several", signatures=signatures)
    many = {f"s{number:02}": several.tripled for number in range(20)}
    tf.saved_model.save(several, folder / "many", signatures={"serving_default": several.doubled, **many})
    for kind in (Writer, Reader):
        made = kind()
        tf.saved_model.save(made, folder / kind.__name__.lower(), signatures={"serving_default": made.serve})
    parser = Parser()
    tf.saved_model.save(parser, folder / "parser", signatures={"classify": parser.classify})
    plain = Plain()
    plain.run(tf.zeros([1]))
    tf.saved_model.save(plain, folder / "plain")
    _two_branches().export(folder / "branches", verbose=False)
    features = random.random((ROWS, 3), np.float32)
    _answers(folder, "numbers", "serving_default", {"features": features})
    _answers(folder, "scorer", "names", {"colour": np.array([b"Red", b"green", b"blue", b"", b"RED"])})
    pair = {"left": random.random((ROWS, 4), np.float32), "right": random.random((ROWS, 3), np.float32)}
    _answers(folder, "branches", "serving_default", pair)


def _answers(folder: Path, name: str, signature: str, inputs: dict[str, Any]) -> None:
    """What TensorFlow itself answers, loaded anew, beside the inputs."""
    function = tf.saved_model.load(folder / name).signatures[signature]
    found = function(**{key: tf.constant(value) for key, value in inputs.items()})
    arrays = {f"inputs.{key}": value for key, value in inputs.items()}
    for key, value in found.items():
        array = value.numpy()
        arrays[f"outputs.{key}"] = array.astype("S") if array.dtype == object else array
    np.savez(folder / f"{name}-{signature}.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
