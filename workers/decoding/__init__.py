"""From files of others' formats to numbers: Parquet and images are read in a runner, never beside a secret."""
