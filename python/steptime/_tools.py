"""One call for each command that is about one scenario."""

from __future__ import annotations

import json
from typing import Any, cast

from . import _steptime
from ._scenario import Overrides, Scenario, source


def _document(text: str) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(text))


def run(scenario: Scenario, *, overrides: Overrides | None = None) -> dict[str, Any]:
    """Predicts one scenario.

    Returns the report, as ``steptime run --json`` prints it: ``step_time_s``, ``step_time_interval_s``, ``verdict``
    (``fits`` or ``out_of_memory``), ``time_breakdown_s``, ``peak_memory`` and more.

    Raises :class:`steptime.Error` where the scenario is wrong. That it does not fit is no error.
    """
    return _document(_steptime.run(source(scenario, overrides)))


def search(
    scenario: Scenario,
    *,
    overrides: Overrides | None = None,
    plays: int = 2000,
    jobs: int | None = None,
) -> dict[str, Any]:
    """Finds the best plan for the scenario's model, cluster and batch, as ``steptime search --json``.

    ``plays`` is how many plans are played at most; ``jobs`` the number of threads, by default one for each processor.
    """
    return _document(_steptime.search(source(scenario, overrides), plays, jobs))


def max_batch(scenario: Scenario, *, overrides: Overrides | None = None) -> dict[str, Any]:
    """Finds the largest micro-batch that fits, as ``steptime max-batch --json``."""
    return _document(_steptime.max_batch(source(scenario, overrides)))


def check(
    scenario: Scenario,
    *,
    overrides: Overrides | None = None,
    claim_time_s: float | None = None,
    claim_memory_bytes: float | None = None,
    plays: int = 64,
) -> dict[str, Any]:
    """Judges the plan that a scenario is, and what its author claims, as ``steptime check --json``.

    ``plays`` is how many plans a search for a better one may play; with 0 none is made.
    """
    return _document(_steptime.check(source(scenario, overrides), claim_time_s, claim_memory_bytes, plays))
