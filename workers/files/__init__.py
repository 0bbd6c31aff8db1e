"""Files of many rows: read in chunks, each a job of its own, their answers written to one file in the same order."""
