"""The same protocols over gRPC: their services answer what the REST routes answer."""
