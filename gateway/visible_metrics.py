"""Metrics for somebody who may not see every model: samples about the others are left out."""

from __future__ import annotations

import re

from gateway.sight import Sight

# Names of models and numbers of versions have nothing in them that the text format escapes.
MODEL = re.compile(r'[{,]model="([^"]+)"')
VERSION = re.compile(r'[{,]version="([0-9]{1,10})"')


def visible_samples(exposition: bytes, sight: Sight) -> bytes:
    """The text format without samples of models and versions that are out of sight.

    Those of the many models that share the label `other` go as well: nobody can tell whose they are.
    """
    if sight.everything:
        return exposition
    lines = exposition.decode().splitlines(keepends=True)
    known: dict[tuple[str, str], bool] = {}
    return "".join(line for line in lines if _seen(line, sight, known)).encode()


def _seen(line: str, sight: Sight, known: dict[tuple[str, str], bool]) -> bool:
    found = None if line.startswith("#") else MODEL.search(line)
    if found is None:
        return True
    version = VERSION.search(line)
    model, number = found[1], "" if version is None else version[1]
    if (model, number) not in known:
        known[(model, number)] = sight.version(model, int(number)) if number else sight.model(model)
    return known[(model, number)]
