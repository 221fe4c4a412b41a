"""Sweeps on a Ray cluster.

>>> import ray, steptime.ray
>>> ray.init("auto")
>>> result = steptime.ray.sweep("grid.toml", out="results", progress=True)

The cluster's machines need the package ``steptime`` of the same version; files that the scenario names travel with it. The
result is the same as that of :func:`steptime.sweep` on one machine, to the byte.
"""

from __future__ import annotations

import os
from typing import Any

import ray

from . import _steptime
from ._scenario import Overrides, Scenario, Source, source
from ._sweep import Collected, Progress, SweepResult, collected

_ready: dict[str, _steptime.Sweep] = {}
"""The sweep that this worker has read."""


def _play(given: Source, texts: dict[str, str], fingerprint: str, points: list[int]) -> list[str]:
    """What a worker does: the lines of some points."""
    played = _ready.get(fingerprint)
    if played is None:
        # One thread: a task takes one processor of the cluster.
        played = _steptime.Sweep(given, texts, 1)
        if played.fingerprint != fingerprint:
            raise _steptime.Error(
                f"a worker reads another sweep: fingerprint {played.fingerprint} against {fingerprint}; it has version "
                f"{_steptime.__version__} of steptime"
            )
        _ready.clear()
        _ready[fingerprint] = played
    return played.play(points)


def sweep(
    scenario: Scenario,
    *,
    overrides: Overrides | None = None,
    out: str | os.PathLike[str] | None = None,
    restart: bool = False,
    batch: int | None = None,
    retries: int = 3,
    progress: Progress = False,
) -> SweepResult:
    """Plays every point of the scenario's ``[sweep]`` on the workers of a Ray cluster, as :func:`steptime.sweep` does here.

    ``batch`` is the number of points of a task, by default so that each processor gets about eight. A task whose worker or
    machine dies is played again, up to ``retries`` times: nothing is lost and nothing doubled. With ``out`` each batch that
    comes back is kept in a journal, so that also this process may be killed and called again. ``ray.init`` is called without
    arguments where Ray has not been started.

    Raises :class:`steptime.Error` where the scenario is wrong, or a batch kills its worker more than ``retries`` times.
    """
    given = source(scenario, overrides)
    played = _steptime.Sweep(given, None, None)
    if batch is not None and batch < 1:
        raise ValueError(f"batch: found {batch}, allowed: whole numbers from 1")
    with collected(played, out, restart, progress) as lines:
        if lines.missing():
            if not ray.is_initialized():
                ray.init()
            _fill(lines, given, batch, retries)
        return lines.result()


BATCHES_A_PROCESSOR = 8
LARGEST_BATCH = 512
IN_FLIGHT = 2
"""Tasks that wait or run for each processor: enough that none idles, and few enough that a lost one is soon seen."""


def _resources() -> dict[str, float]:
    # Ray does not say what this function returns.
    cluster: Any = ray
    return {"CPU": 1.0, **cluster.cluster_resources()}


def _fill(lines: Collected, given: Source, batch: int | None, retries: int) -> None:
    """Plays what is missing on the cluster."""
    missing = lines.missing()
    processors = max(int(_resources()["CPU"]), 1)
    size = batch or min(max(len(missing) // (BATCHES_A_PROCESSOR * processors), 1), LARGEST_BATCH)
    batches = [missing[start : start + size] for start in range(0, len(missing), size)]
    played = lines.sweep
    texts = ray.put(played.texts)
    task: Any = ray.remote(num_cpus=1, max_retries=retries)(_play)
    flying: dict[Any, list[int]] = {}
    try:
        while batches or flying:
            while batches and len(flying) < IN_FLIGHT * processors:
                points = batches.pop(0)
                flying[task.remote(given, texts, played.fingerprint, points)] = points
            ready, _ = ray.wait(list(flying), num_returns=1)
            for reference in ready:
                points = flying.pop(reference)
                lines.add(points, _result(reference, points, retries))
    finally:
        for reference in flying:
            ray.cancel(reference, force=True)


def _result(reference: Any, points: list[int], retries: int) -> list[str]:
    try:
        found: list[str] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, _steptime.Error) else _steptime.Error(str(error))) from None
    except ray.exceptions.RayError as error:
        raise _steptime.Error(
            f"points {points[0]} to {points[-1]} were lost {retries + 1} times: {error}; what is in the journal is kept"
        ) from error
    return found
