"""From an uploaded file to a served version: inspect, convert, prove, measure."""
