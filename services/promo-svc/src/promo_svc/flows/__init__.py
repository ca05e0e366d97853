"""One flow, one file, one transaction."""
