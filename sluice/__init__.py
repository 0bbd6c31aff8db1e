"""The command `sluice`, the embedded system behind `sluice up`, and the Python client."""
