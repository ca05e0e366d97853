"""Settings are a frozen dataclass, read once from the environment. A secret may come from a file (NAME_FILE)."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")
TRUE, FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


class SettingsError(Exception):
    """The environment cannot be used; the message names the variable."""


def _convert(name: str, text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() not in TRUE | FALSE:
            raise SettingsError(f"{name} must be true or false, not {text!r}")
        return text.lower() in TRUE
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise SettingsError(f"{name} must be a number, not {text!r}") from None
    if kind is str:
        return text
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _read_file(name: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise SettingsError(f"{name} names a file that cannot be read: {error.strerror}") from None


def load(cls: type[T], prefix: str, env: Mapping[str, str]) -> T:
    """Build `cls` from PREFIX_FIELD variables.

    Fields may be str, int, float, bool or tuple[str, ...] (comma separated). Raises SettingsError for a missing,
    unknown or malformed variable.
    """
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for variable, text in env.items():
        if not variable.startswith(prefix):
            continue
        name = variable[len(prefix) :].lower()
        if name not in fields and name.endswith("_file") and name.removesuffix("_file") in fields:
            name, text = name.removesuffix("_file"), _read_file(variable, text)
        if name not in fields:
            close = difflib.get_close_matches(name, fields, 1)
            hint = f"; did you mean {prefix}{close[0].upper()}?" if close else ""
            raise SettingsError(f"{variable} is not a setting{hint}")
        values[name] = _convert(variable, text, hints[name])
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SettingsError(f"{prefix}{name.upper()} is not set")
    return cls(**values)
