"""Models, their versions and artifacts: what can be served, and the bytes it is made of."""
