"""Failures that a command expects and explains; the command line prints the message and exits with 1."""

from __future__ import annotations


class CommandFailed(Exception):
    """A command cannot do what was asked; the message says why and, where it can, what to do."""
