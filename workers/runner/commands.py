"""What a runner can be asked to do: the name of each command and the function that carries it out in the child.

A command is `(held, arguments, tensors) -> (answer, tensors)`: `held` is a dictionary that lives as long as the runner
(a loaded model is kept there), `arguments` and `answer` are JSON objects without NaN. The names are the only way in:
a parent never sends code or the name of a function.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from model_store.signature import Tensors

Command = Callable[[dict[str, Any], dict[str, Any], Tensors], tuple[dict[str, Any], Tensors]]

COMMANDS: dict[str, str] = {
    "load_savedmodel": "workers.runner.savedmodel:load",
    "predict_savedmodel": "workers.runner.savedmodel:predict",
}


def find(commands: Mapping[str, str], name: str) -> Command:
    """The function behind a name, its module imported only now; KeyError for a name that is not listed."""
    module, _, function = commands[name].partition(":")
    found: Command = getattr(importlib.import_module(module), function)
    return found
