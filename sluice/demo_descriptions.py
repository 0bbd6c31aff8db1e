"""What the demo says of its models: how files become their inputs, and what their classes are called."""

from __future__ import annotations

from urllib.parse import quote

from sluice.client import Client, Json

# In the order of the models' outputs.
TOPICS = ("weather", "sport", "food", "travel")
WAVES = ("sine", "triangle", "square", "sawtooth", "noise")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

DESCRIPTIONS: dict[str, Json] = {
    "mnist": {
        "description": "Handwritten digits, white on black, 28 x 28 pixels.",
        "class_names": DIGITS,
        "input_specification": {
            "kind": "image",
            "height": 28,
            "width": 28,
            "channels": 1,
            "resize": "stretch",
            "range": [0, 1],
        },
    },
    "topics": {
        "description": "The topic of an English sentence; trained on sentences that a small grammar makes.",
        "class_names": TOPICS,
        "input_specification": {"kind": "text", "language": "en"},
    },
    "tones": {
        "description": "The kind of wave that half a second of a tone is made of; trained on tones made by a program.",
        "class_names": WAVES,
        "input_specification": {"kind": "audio", "sample_rate": 8000, "channels": 1, "seconds": 0.5},
    },
}


def describe(sluice: Client, model: str) -> None:
    """Describe a model of the demo, unless somebody has described it; raises Refused."""
    path = f"/admin/models/{quote(model, safe='')}/settings"
    said = DESCRIPTIONS.get(model, {})
    known = sluice.get(path)
    if said and all(known[name] is None for name in said):
        sluice.put(path, known | said)
