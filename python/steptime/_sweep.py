"""Sweeps on one machine, and what sweeps on others share with them."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Union, cast

from . import _steptime
from ._scenario import Overrides, Scenario, source

Progress = Union[bool, Callable[[int, int], None]]
"""``True`` shows a line on a terminal; a function is called with the points that are there and all of them."""


@dataclass(frozen=True)
class SweepResult:
    """Every point of a sweep, in the order of points. Order and bytes depend on the scenario alone."""

    name: str
    """Name of the scenario."""
    csv: str
    """The table: the bytes of ``sweep.csv``."""
    jsonl: str
    """A header and a line a point: the bytes of ``sweep.jsonl``."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A dictionary a point: its ``point``, ``values`` of the axes, ``verdict``, ``step_time_s``, and so on."""
        return [cast("dict[str, Any]", json.loads(line)) for line in self.jsonl.splitlines()[1:]]

    @property
    def header(self) -> dict[str, Any]:
        """What the sweep is: ``axes``, number of ``points``, those ``skipped``, ``fingerprint``."""
        return cast("dict[str, Any]", json.loads(self.jsonl.splitlines()[0]))

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Writes ``sweep.csv`` and ``sweep.jsonl``: each appears whole, and none before both are complete."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        staged: list[tuple[str, Path]] = []
        try:
            for name, text in [("sweep.csv", self.csv), ("sweep.jsonl", self.jsonl)]:
                handle, temporary = tempfile.mkstemp(prefix=".tmp-steptime-", dir=place)
                staged.append((temporary, place / name))
                with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                # Temporary files are private; results are as readable as any file that the user makes.
                os.chmod(temporary, 0o666 & ~_umask())
            for temporary, final in staged:
                os.replace(temporary, final)
        finally:
            for temporary, _ in staged:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class Collected:
    """Lines of a sweep as they come, kept in a journal where there is a folder."""

    def __init__(
        self,
        sweep: _steptime.Sweep,
        folder: str | os.PathLike[str] | None,
        restart: bool,
        progress: Progress,
    ) -> None:
        self.sweep = sweep
        self.folder = None if folder is None else Path(folder)
        self._progress = progress
        self._begun = time.monotonic()
        self._journal = (
            None if self.folder is None else _steptime.Journal(sweep, str(self.folder), restart)
        )
        self._lines = dict(self._journal.there) if self._journal else {}
        self._at_start = len(self._lines)
        self.finished = self._journal is not None and self._journal.finished

    def missing(self) -> list[int]:
        """Points that are still to be played, in order."""
        return [point for point in range(self.sweep.points) if point not in self._lines]

    def add(self, points: list[int], lines: list[str]) -> None:
        """Takes the lines of points; those that are there already are left as they are."""
        new = [(point, line) for point, line in zip(points, lines) if point not in self._lines]
        if self._journal and new:
            self._journal.append([line for _, line in new])
        self._lines.update(new)
        self._show()

    def result(self) -> SweepResult:
        """The whole, which all points must be there for; written where there is a folder."""
        lines = [self._lines[point] for point in range(self.sweep.points)]
        result = SweepResult(
            name=self.sweep.name,
            csv=self.sweep.csv(lines),
            jsonl=self.sweep.header() + "".join(lines),
        )
        if self.folder is not None and not self.finished:
            result.write(self.folder)
            self.close(done=True)
        return result

    def close(self, done: bool = False) -> None:
        """Gives the journal up."""
        if self._journal:
            self._journal.close(done)

    def _show(self) -> None:
        there, points = len(self._lines), self.sweep.points
        if callable(self._progress):
            self._progress(there, points)
        elif self._progress and sys.stderr.isatty():
            rate = max((there - self._at_start) / max(time.monotonic() - self._begun, 1e-9), 1e-9)
            end = "\n" if there == points else ""
            sys.stderr.write(f"\r{there}/{points} points, {rate:.0f}/s, {(points - there) / rate:.0f} s left {end}")
            sys.stderr.flush()


@contextlib.contextmanager
def collected(
    sweep: _steptime.Sweep,
    folder: str | os.PathLike[str] | None,
    restart: bool,
    progress: Progress,
) -> Iterator[Collected]:
    """A collection whose journal stays for the next run when something goes wrong."""
    lines = Collected(sweep, folder, restart, progress)
    try:
        yield lines
    finally:
        lines.close()


SECONDS_A_BATCH = 0.25
"""How long a batch is meant to take, so that interrupts and progress are seen."""


def sweep(
    scenario: Scenario,
    *,
    overrides: Overrides | None = None,
    out: str | os.PathLike[str] | None = None,
    restart: bool = False,
    jobs: int | None = None,
    progress: Progress = False,
) -> SweepResult:
    """Plays every point of the scenario's ``[sweep]`` on the threads of this machine, as ``steptime sweep``.

    ``out`` is a folder for ``sweep.csv`` and ``sweep.jsonl``. While the sweep runs its points are kept in a journal there:
    interrupted or killed, the same call (or the program) goes on where it was. ``restart`` gives up what is there of
    another sweep. ``jobs`` is the number of threads, by default one for each processor.

    What goes wrong at a point is the ``reason`` of its row. Raises :class:`steptime.Error` where the scenario or its
    ``[sweep]`` is wrong, or the folder holds another sweep.
    """
    played = _steptime.Sweep(source(scenario, overrides), None, jobs)
    with collected(played, out, restart, progress) as lines:
        missing = lines.missing()
        size = 4 * played.threads
        while missing:
            batch, missing = missing[:size], missing[size:]
            begun = time.monotonic()
            lines.add(batch, played.play(batch))
            spent = time.monotonic() - begun
            size = min(max(int(size * SECONDS_A_BATCH / max(spent, 1e-6)), played.threads), 2 * size)
        return lines.result()
