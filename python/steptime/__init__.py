"""Predicts the step time and peak memory of deep-learning training.

>>> import steptime
>>> report = steptime.run("scenario.toml", overrides={"workload.micro_batch_size": 4})
>>> report["step_time_s"], report["verdict"]

A scenario is a path, TOML as text, or a dictionary of the same shape. Results are dictionaries of the same form as the
program's ``--json``. Whatever is wrong with a scenario is an :class:`Error` with the program's own message. Python's
global lock is released while something is computed: threads run side by side.

:func:`steptime.ray.sweep` plays a sweep on a Ray cluster.
"""

from ._scenario import Overrides, Scenario
from ._steptime import Error, __version__
from ._sweep import Progress, SweepResult, sweep
from ._tools import check, max_batch, run, search

__all__ = [
    "Error",
    "Overrides",
    "Progress",
    "Scenario",
    "SweepResult",
    "__version__",
    "check",
    "max_batch",
    "run",
    "search",
    "sweep",
]
