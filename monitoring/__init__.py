"""Metrics and logs: declared here, used everywhere."""
