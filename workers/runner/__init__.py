"""The runner: a process of its own for whatever must not live in a Celery child."""
