"""Which methods an address takes, for the header Allow of 405 (RFC 9110, section 15.5.6).

The router names those of the first route with that path only; here one path is often several routes.
"""

from __future__ import annotations

import functools
import re

from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import compile_path

from gateway.prediction_addresses import parse_path


def methods_of(app: FastAPI, path: str) -> str:
    """As Allow lists them, in alphabetical order."""
    if parse_path(path) is not None:
        return "POST"
    found = [(template, methods) for template, pattern, methods in _routes(app) if pattern.match(path)]
    # A name that is an address of its own is not the name of something.
    own = [methods for template, methods in found if template == path] or [methods for _, methods in found]
    return ", ".join(sorted({method for methods in own for method in methods}))


@functools.cache
def _routes(app: FastAPI) -> list[tuple[str, re.Pattern[str], frozenset[str]]]:
    return [
        (str(route.path_format), compile_path(str(route.path_format))[0], frozenset(route.methods or ()))
        for route in iter_route_contexts(app.routes)
        if not _only_refuses(route)
    ]


def _only_refuses(route: RouteContext) -> bool:
    """Whether a route only says in its prefix's own words that there is nothing."""
    return ":path}" in str(route.path) or (not route.include_in_schema and "POST" in (route.methods or ()))
