"""Proof that nothing accepted is lost: faults under load, a recorder of what callers saw, a checker of its history."""
