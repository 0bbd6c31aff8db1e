"""The parameter budget: a configuration may not ask for more than its file of weights holds.

Keras allocates what a configuration asks for before it looks at the weights: 10^8 units with a file of 20 KB took
5.4 GiB. So every layer is compared with the whole file first. That is a lower bound for each alone, not a sum, since
layers that share their weights are written more than once; what all of them together ask for meets the runner's limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from workers.preparation.findings import refused

Json = dict[str, object]

# Factors of the smallest array of weights that a layer of these classes has.
_FACTORS: dict[str, tuple[str, ...]] = {
    "Dense": ("units",),
    "Embedding": ("input_dim", "output_dim"),
    "ReversibleEmbedding": ("input_dim", "output_dim"),
    "MultiHeadAttention": ("num_heads", "key_dim"),
    "GroupedQueryAttention": ("num_query_heads", "head_dim"),
    "GroupQueryAttention": ("num_query_heads", "head_dim"),
}
_FACTORS |= {f"{cell}{end}": ("units",) for cell in ("LSTM", "GRU", "SimpleRNN") for end in ("", "Cell")}
_FACTORS |= {f"Conv{rank}D{end}": ("filters",) for rank in (1, 2, 3) for end in ("", "Transpose")}
_FACTORS |= {f"{kind}{rank}D": ("filters",) for kind in ("SeparableConv", "ConvLSTM") for rank in (1, 2, 3)}
# The narrowest weights, of int4, are kept two in a byte.
WEIGHTS_PER_BYTE = 2


def check(model: Json, weight_bytes: int) -> None:
    """Raises UploadRefused (weights_mismatch) for a layer that needs more weights than the file holds altogether.

    `model` is an inspected configuration, `weight_bytes` what the datasets of the file declare together.
    """
    most = weight_bytes * WEIGHTS_PER_BYTE
    for place, class_name, least in _needs(model, ""):
        if least > most:
            raise refused(
                "weights_mismatch",
                f"{class_name} has {least:,} weights or more, and the file holds {weight_bytes:,} bytes of weights",
                place,
            )


def _needs(value: object, place: str) -> Iterator[tuple[str, str, int]]:
    """Place, class and least number of weights of everything in a configuration that has any."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _needs(item, f"{place}[{index}]")
    elif isinstance(value, dict):
        class_name, config = value.get("class_name"), value.get("config")
        if isinstance(class_name, str) and class_name in _FACTORS and isinstance(config, dict):
            yield place, class_name, math.prod(_count(config.get(name)) for name in _FACTORS[class_name])
        for key, item in value.items():
            yield from _needs(item, f"{place}.{key}")


def _count(value: object) -> int:
    return value if type(value) is int else 1
