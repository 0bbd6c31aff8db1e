"""Attacks on tokens, rights and the token endpoint over real HTTP: numbered cases A01 to A100, a file for each kind."""
