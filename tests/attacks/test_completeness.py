"""Every numbered case of attack is tried: none of A01 to A100 is missing, and none stands for nothing."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

HERE = Path(__file__).parent
ID = re.compile(r"A(\d{2,3})\b")
IN_NAME = re.compile(r"(?<=_)a(\d{2,3})(?=_)")


def test_no_case_is_missing():
    tried = {number for path in sorted(HERE.glob("test_*.py")) for number in numbers_of(path.stem)}
    assert tried == set(range(1, 101))


def numbers_of(name: str) -> Iterator[int]:
    """The numbers of the cases that the tests of a module try: of their parameters, or of the tests' own names."""
    module = importlib.import_module(f"tests.attacks.{name}")
    for function in vars(module).values():
        if isinstance(function, FunctionType) and function.__name__.startswith("test_"):
            for text in texts_of(function):
                yield from map(int, ID.findall(text))
            yield from map(int, IN_NAME.findall(function.__name__))


def texts_of(function: FunctionType) -> Iterator[str]:
    """What pytest calls the cases of a parametrised test, and what the cases call themselves."""
    for mark in getattr(function, "pytestmark", []):
        if mark.name != "parametrize":
            continue
        ids = mark.kwargs.get("ids", ())
        for case in mark.args[1]:
            yield ids(case) if callable(ids) else str(getattr(case, "id", case[0] if isinstance(case, tuple) else ""))
        yield from () if callable(ids) else ids
