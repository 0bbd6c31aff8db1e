"""The rule that names of models and labels follow."""

from __future__ import annotations

import re

from model_store.errors import NameInvalid

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_name(name: str, what: str = "model") -> str:
    """The name itself; raises NameInvalid with the rule that it breaks."""
    if not NAME.fullmatch(name):
        raise NameInvalid(
            f"not a {what}'s name: 1 to 128 letters, digits, '.', '_' and '-', beginning with a letter or a digit"
        )
    return name
