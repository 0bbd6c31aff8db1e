"""A runner with commands for tests, executed as `python -m tests.runner_commands`: a good one and many bad ones."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from model_store.signature import Tensors
from workers.errors import PredictionFailed, UploadRefused
from workers.runner import archive
from workers.runner.__main__ import main
from workers.runner.commands import COMMANDS

State = dict[str, Any]
Answer = tuple[State, Tensors]


def echo(held: State, arguments: State, tensors: Tensors) -> Answer:
    held["calls"] = held.get("calls", 0) + 1
    return {"calls": held["calls"], **arguments}, tensors


def look_around(_held: State, arguments: State, _tensors: Tensors) -> Answer:
    limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in arguments["limits"]}
    with os.scandir("/proc/self/fd") as listed:
        descriptors = [os.readlink(entry.path) for entry in listed]
    return {
        "environment": dict(os.environ),
        "limits": limits,
        "descriptors": [target for target in descriptors if not target.endswith("/fd")],  # without the listing itself
        "folder": os.getcwd(),
        "session": os.getsid(0),
        "path": sys.path,
        "files": os.listdir(),
    }, {}


def fail(_held: State, arguments: State, _tensors: Tensors) -> Answer:
    raise {
        "refused": UploadRefused("the third layer is a Lambda", code="class_not_allowed"),
        "failed": PredictionFailed("the model does not like this"),
        "foreign": ValueError("cannot read /home/someone/secret.txt at all\nTraceback: …"),
        "memory": ImportError("libtensorflow_cc.so.2: failed to map segment from shared object"),
        "exit": SystemExit(3),
    }[arguments["how"]]


def allocate(_held: State, arguments: State, _tensors: Tensors) -> Answer:
    return {"sum": float(np.ones(arguments["bytes"], np.uint8).sum())}, {}


def answer_with(_held: State, arguments: State, _tensors: Tensors) -> Answer:
    return {}, {"zeros": np.zeros(arguments["bytes"], np.uint8)}


def write(_held: State, arguments: State, _tensors: Tensors) -> Answer:
    with open("large", "wb") as file:
        file.write(b"x" * arguments["bytes"])
    return {}, {}


def spin(_held: State, _arguments: State, _tensors: Tensors) -> Answer:
    while True:
        pass


def hold_the_lock(_held: State, _arguments: State, _tensors: Tensors) -> Answer:
    """A native call that never lets other threads of Python run."""
    ctypes.PyDLL(None).sleep(600)
    return {}, {}


def die(_held: State, arguments: State, _tensors: Tensors) -> Answer:
    os.write(2, arguments.get("last_words", "").encode())
    os.abort()


def chatter(_held: State, arguments: State, _tensors: Tensors) -> Answer:
    for _ in range(arguments["lines"]):
        sys.stdout.write("all work and no play makes Jack a dull boy\n")
    sys.stdout.flush()
    return {}, {}


def break_the_frame(_held: State, arguments: State, _tensors: Tensors) -> Answer:
    os.write(int(sys.argv[1]), bytes.fromhex(arguments["hex"]))
    time.sleep(60)
    return {}, {}


def make_savedmodel(_held: State, _arguments: State, _tensors: Tensors) -> Answer:
    """A SavedModel of texts and weights: their product with the texts' lengths, and the texts in upper case.

    The text `hang` makes it hang, a negative weight makes it fail.
    """
    import tensorflow as tf

    class Shout(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = tf.Variable(2.0)

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 1], tf.string, name="text"),
                tf.TensorSpec([None], tf.float32, name="a_weight"),
            ]
        )
        def __call__(self, text: tf.Tensor, a_weight: tf.Tensor) -> dict[str, tf.Tensor]:
            turns = tf.constant(0.0)
            while tf.reduce_any(text == "hang"):
                turns += 1.0
            with tf.control_dependencies([tf.debugging.assert_non_negative(a_weight, "a weight is negative")]):
                lengths = tf.cast(tf.strings.length(text[:, 0]), tf.float32)
                return {"score": self.factor * lengths * a_weight + turns, "shout": tf.strings.upper(text)}

    model = Shout()
    tf.saved_model.save(model, "made", signatures={"serving_default": model.__call__})
    archive.pack(Path("made"), Path("made.tar"))
    return {}, {}


def make_doubling_savedmodel(_held: State, _arguments: State, _tensors: Tensors) -> Answer:
    """A SavedModel with y = 2 * x for rows of two numbers, whose caller chooses what else it does meanwhile.

    It multiplies matrices in as many rounds as the largest x[:, 1] says, each of about a tenth of a millisecond, and it
    takes as many megabytes as the smallest x[:, 0] is below zero.
    """
    import tensorflow as tf

    class Doubling(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            matrix = tf.eye(128)
            for _ in tf.range(tf.cast(tf.reduce_max(x[:, 1]), tf.int64)):
                matrix = tf.linalg.matmul(matrix, tf.eye(128))
            hunger = tf.cast(tf.maximum(tf.reduce_max(-x[:, 0]), 1.0), tf.int64)
            nothing = tf.cast(tf.reduce_max(tf.zeros(tf.stack([hunger, 2**20]), tf.uint8)), tf.float32)
            return {"y": 2.0 * x * (tf.reduce_sum(matrix) / 128.0) + nothing}

    model = Doubling()
    tf.saved_model.save(model, "made", signatures={"serving_default": model.__call__})
    archive.pack(Path("made"), Path("made.tar"))
    return {}, {}


TEST_COMMANDS = {
    command.__name__: f"tests.runner_commands:{command.__name__}"
    for command in (
        echo, look_around, fail, allocate, answer_with, write, spin, hold_the_lock, die, chatter,
        break_the_frame, make_savedmodel, make_doubling_savedmodel,
    )
}  # fmt: skip

if __name__ == "__main__":
    main({**COMMANDS, **TEST_COMMANDS})
