"""How fast predictions are, measured beside a floor that has no queue: `make bench`."""
