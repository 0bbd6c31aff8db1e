"""Runtimes that execute a variant: each loads an artifact into a predictor."""
