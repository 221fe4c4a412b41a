"""Scenarios as Python has them, and as text for the program."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple, Union

from ._steptime import Error

Scenario = Union[str, "os.PathLike[str]", Mapping[str, Any]]
"""A path, TOML as text (a string with a line break or ``=``), or a dictionary."""

Overrides = Union[Mapping[str, Any], Sequence[str]]
"""Keys to change: ``{"workload.micro_batch_size": 4}``, or ``["workload.micro_batch_size=4"]``."""


class Source(NamedTuple):
    """A scenario as the program reads it; may be sent to another machine."""

    name: str
    text: str
    folder: str
    overrides: list[str]


def source(scenario: Scenario, overrides: Overrides | None) -> Source:
    """The scenario as text, and where the files are that it names: beside its own file, else in the working folder."""
    changes = _changes(overrides)
    if isinstance(scenario, Mapping):
        lines = [f"{_key(key)} = {toml(value, key)}" for key, value in scenario.items()]
        return Source("<dict>", "\n".join(lines) + "\n", ".", changes)
    if isinstance(scenario, str) and ("\n" in scenario or "=" in scenario):
        return Source("<text>", scenario, ".", changes)
    path = Path(scenario)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Error(f"{path}: {error}") from error
    return Source(str(path), text, str(path.parent), changes)


def _changes(overrides: Overrides | None) -> list[str]:
    if overrides is None:
        return []
    if isinstance(overrides, str):
        raise TypeError("overrides is a mapping or a list of `section.key=value`, not one text")
    if isinstance(overrides, Mapping):
        return [f"{key}={toml(value, key)}" for key, value in overrides.items()]
    return list(overrides)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"keys of a scenario are text, not {key!r}")
    return _text(key)


def _text(value: str) -> str:
    # JSON's escapes are also TOML's, which in addition asks for one of DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml(value: object, where: str) -> str:
    """A value as TOML writes it inline."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, os.PathLike):
        return _text(os.fspath(value))
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        number = float(value)
        return repr(number) if math.isfinite(number) else str(number)
    if isinstance(value, Mapping):
        entries = [f"{_key(key)} = {toml(inner, f'{where}.{key}')}" for key, inner in value.items()]
        return "{ " + ", ".join(entries) + " }" if entries else "{}"
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return "[" + ", ".join(toml(item, where) for item in value) + "]"
    raise TypeError(f"{where}: {type(value).__name__} has no form in a scenario")
