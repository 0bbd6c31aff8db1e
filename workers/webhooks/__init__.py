"""Webhooks after the Standard Webhooks specification: who is told of which ends, and every telling."""
