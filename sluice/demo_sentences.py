"""The demo's text classifier: which topic a sentence is of, learned from sentences that a small grammar makes.

Words of several topics, and sentences with a word of another one in passing, leave something to learn.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from sluice.demo_descriptions import TOPICS

COUNT = 2400
HELD_OUT = 600
EPOCHS = 8
WORDS = 16
TOKENS = 400
# How often a sentence mentions another topic, and how often it does not name its own subject.
ASIDE = 0.5
UNNAMED = 0.2

OPENINGS = ("today", "this morning", "last week", "as always", "to be honest", "after all", "on sunday", "once more")
PLACES = ("in the north", "by the sea", "near the old bridge", "at the station", "in town", "up in the hills")
WHO = ("we", "my neighbour", "the whole family", "they", "nobody", "everybody", "our teacher", "a friend")
GRAMMAR: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "weather": (
        ("rain", "fog", "a cold wind", "thick snow", "the heat", "a storm", "sunshine", "hail"),
        ("came down", "cleared up", "lasted for hours", "broke at noon", "kept everybody inside", "was forecast"),
        ("clouds", "puddles", "an umbrella", "frost", "thunder", "dry air"),
    ),
    "sport": (
        ("the match", "a late goal", "the marathon", "our team", "the referee", "the final", "a penalty", "the race"),
        ("was lost", "was won", "drew a crowd", "lasted for hours", "ended level", "broke the record"),
        ("a whistle", "the score", "training", "a medal", "the trainer", "extra time"),
    ),
    "food": (
        ("the soup", "fresh bread", "a roast", "the salad", "cold noodles", "the curry", "a cake", "the cheese"),
        ("was too salty", "tasted of summer", "was served late", "simmered for hours", "was sold out", "burnt"),
        ("pepper", "a spoon", "garlic", "the oven", "butter", "a recipe"),
    ),
    "travel": (
        ("the train", "our flight", "the ferry", "a night bus", "the hotel", "the luggage", "the border", "a taxi"),
        ("was delayed", "left at noon", "was sold out", "took a detour", "lasted for hours", "arrived early"),
        ("a ticket", "the platform", "passports", "a map", "the suitcase", "check-in"),
    ),
}


def sentences(count: int, random: np.random.Generator) -> tuple[list[str], np.ndarray[Any, Any]]:
    """So many sentences, and the number of each one's topic."""
    topics = random.integers(0, len(TOPICS), count)
    return [_sentence(TOPICS[topic], random) for topic in topics], topics.astype("int64")


def trained(seed: int, callbacks: list[keras.callbacks.Callback]) -> tuple[keras.Model, float, str, str]:
    """A model from strings (batch, 1) to probabilities, its accuracy on held-out ones, one of those and its topic."""
    texts, topics = sentences(COUNT, np.random.default_rng(seed))
    # What both have in common, word for word, would be no test.
    known = set(texts[HELD_OUT:])
    held_out = [number for number in range(HELD_OUT) if texts[number] not in known]
    vocabulary = keras.layers.TextVectorization(max_tokens=TOKENS, output_sequence_length=WORDS)
    vocabulary.adapt(texts[HELD_OUT:])
    network = keras.Sequential(
        [
            keras.Input((1,), dtype="string", name="text"),
            vocabulary,
            keras.layers.Embedding(vocabulary.vocabulary_size(), 16),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(len(TOPICS), activation="softmax", name="topic"),
        ]
    )
    network.compile(optimizer=keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    inputs = keras.ops.convert_to_tensor([[text] for text in texts], "string")
    network.fit(inputs[HELD_OUT:], topics[HELD_OUT:], batch_size=64, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    rows = keras.ops.convert_to_tensor([[texts[number]] for number in held_out], "string")
    _, accuracy = network.evaluate(rows, topics[held_out], verbose=0)
    return network, float(accuracy), texts[held_out[0]], TOPICS[topics[held_out[0]]]


def _sentence(topic: str, random: np.random.Generator) -> str:
    subjects, deeds, things = GRAMMAR[topic]
    words = [_one(OPENINGS, random), "it" if random.random() < UNNAMED else _one(subjects, random), _one(deeds, random)]
    if random.random() < 0.5:
        words += ["and", _one(WHO, random), "thought of", _one(things, random)]
    if random.random() < ASIDE:
        words += [_one(PLACES, random), "with", _one(GRAMMAR[_one(TOPICS, random)][2], random)]
    return " ".join(words)


def _one(among: tuple[str, ...], random: np.random.Generator) -> str:
    return among[random.integers(len(among))]
