"""What reads bytes of strangers, given bytes that nobody would send on purpose."""
