"""promo-svc: see its README."""
