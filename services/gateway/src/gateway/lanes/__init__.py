"""The hot path: GET /v1/decisions, from the connection to the answer."""
