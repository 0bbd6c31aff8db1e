"""Honest models of all kinds, which the gate must let pass."""
