"""One flow, one file."""
