"""Chromium of the system, driven by Playwright."""

from __future__ import annotations

import importlib.util
import shutil

PACKAGES = ("chromium",)


def available() -> str | None:
    """None when both are there, else what is missing."""
    if shutil.which("chromium") is None:
        return "chromium is not installed"
    return None if importlib.util.find_spec("playwright") else "playwright is not installed"
