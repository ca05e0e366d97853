"""content-svc: see its README."""
