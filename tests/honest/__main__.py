"""Saves honest models into a folder: `python -m tests.honest FOLDER GROUP`, a group as `__main__.GROUPS` names it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import keras

from tests.honest import applications, layers, shapes

# What `make test` takes of each group; the others are left to `make test-all`.
FEW_LAYERS = ("EinsumDense", "StringLookup", "TimeDistributed")
FEW_SHAPES = ("residual", "regularised", "operators", "quantised_int4")
FEW_CONFIGS = ("MobileNetV3Large",)


def models(group: str) -> Iterator[tuple[str, keras.Model, str]]:
    """Name, model and ending of each model of a group that is saved whole."""
    few = group == "few"
    if group in ("layers", "few"):
        for name in FEW_LAYERS if few else layers.names():
            yield f"layer_{name}", layers.build(name), ".keras"
    if group in ("shapes", "few"):
        for name in FEW_SHAPES if few else shapes.BUILDS:
            model = shapes.BUILDS[name]()
            yield name, model, ".keras"
            if name in shapes.LEGACY and not few:
                yield f"{name}_h5", model, ".h5"
    if group == "applications":
        for name in applications.SMALLEST:
            yield name, applications.build(name), ".keras"


def main(folder: Path, group: str) -> None:
    for name, model, ending in models(group):
        model.save(folder / f"{name}{ending}")
        keras.backend.clear_session()
    configs = {"few": FEW_CONFIGS, "configs": sorted(set(applications.names()) - set(applications.SMALLEST))}
    for name in configs.get(group, ()):
        (folder / f"{name}.json").write_text(json.dumps(applications.config(name)))
    # How many there are in all groups together.
    print(len(layers.names()) + len(shapes.BUILDS) + len(shapes.LEGACY) + len(applications.names()))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
