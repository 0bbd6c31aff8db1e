"""Hostile and broken model files, made by code; whatever they try could at most leave a mark or ring a bell."""
