"""HTML and SVG, element by element: every text and every attribute is escaped, so that nothing said becomes markup."""

from __future__ import annotations

import html

VOID = frozenset({"meta"})


class Markup:
    """Text that is markup already; only `element` makes it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def element(tag: str, *children: Markup | str | float, **attributes: object) -> Markup:
    """`<tag …>children</tag>`, in which whatever is not Markup is escaped.

    Names of attributes have `_` where the document has `-`, and may end in one.
    """
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for name, value in attributes.items()
    )
    if tag in VOID:
        return Markup(f"<{tag}{named}>")
    return Markup(f"<{tag}{named}>{''.join(map(_written, children))}</{tag}>")


def _written(child: Markup | str | float) -> str:
    return child.text if isinstance(child, Markup) else html.escape(str(child))
