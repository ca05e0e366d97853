"""gateway: see its README."""
