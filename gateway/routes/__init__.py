"""FastAPI routers, one noun each."""
