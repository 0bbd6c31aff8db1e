"""Models straight from an MLflow server: what a URI names, fetched over its REST interface into the store."""
