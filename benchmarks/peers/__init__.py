"""What somebody would use instead of Sluice, installed and measured beside it: `python -m benchmarks.peers`."""
