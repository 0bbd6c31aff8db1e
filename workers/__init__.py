"""The queue and what works on it: lanes, drains, jobs, runtimes and the preparation of uploads."""
