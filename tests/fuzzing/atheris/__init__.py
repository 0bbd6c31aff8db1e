"""Fuzzing with atheris, which has an environment of its own."""
