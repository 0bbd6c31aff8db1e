"""Where the store's bytes lie: in a folder that all processes share, or in a bucket that speaks S3."""
