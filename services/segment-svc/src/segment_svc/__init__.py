"""segment-svc: see its README."""
