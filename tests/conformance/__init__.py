"""Runs language-neutral cases against the product: see tools/conformance.py."""
