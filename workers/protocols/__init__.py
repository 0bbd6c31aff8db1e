"""Wire formats: bodies to tensors and tensors to bodies, one dialect a file; no runtime in reach."""
