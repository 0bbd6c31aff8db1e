"""Models that PyTorch wrote."""
