"""Pytest plugin: real servers as fixtures."""
