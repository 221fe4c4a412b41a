"""Sweeps: the bytes of the program, also after a kill."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import steptime
from conftest import GRID, Program


def test_bytes_are_those_of_the_program(grid: Path, tmp_path: Path, expected: tuple[bytes, bytes]) -> None:
    for jobs in (1, 4):
        result = steptime.sweep(grid, jobs=jobs)
        assert (result.csv.encode(), result.jsonl.encode()) == expected
    out = tmp_path / "out"
    seen: list[tuple[int, int]] = []
    steptime.sweep(grid, out=out, progress=lambda there, points: seen.append((there, points)))
    assert sorted(path.name for path in out.iterdir()) == ["sweep.csv", "sweep.jsonl"]
    assert ((out / "sweep.csv").read_bytes(), (out / "sweep.jsonl").read_bytes()) == expected
    assert seen[-1] == (24, 24) and seen == sorted(seen)
    # What is there is not played again.
    assert steptime.sweep(grid, out=out, progress=pytest.fail).csv.encode() == expected[0]


def test_rows_are_dictionaries(grid: Path) -> None:
    result = steptime.sweep(grid)
    assert result.name == "grid" and result.header["points"] == 24 == len(result.rows)
    verdicts = {row["verdict"] for row in result.rows}
    assert verdicts == {"fits", "out_of_memory", "refused"}
    first = result.rows[0]
    report = steptime.run(GRID.split("[sweep]")[0], overrides=first["values"])
    assert report["step_time_s"] == first["step_time_s"]


def test_a_sweep_that_the_program_began_is_finished(
    grid: Path, tmp_path: Path, expected: tuple[bytes, bytes]
) -> None:
    out = tmp_path / "begun"
    out.mkdir()
    lines = expected[1].decode().splitlines(keepends=True)
    # A header, points out of order, and a line that was cut off.
    (out / "sweep.journal").write_text(lines[0] + lines[7] + lines[3] + lines[12][:40])
    counts: list[int] = []
    steptime.sweep(grid, out=out, jobs=1, progress=lambda there, _: counts.append(there))
    assert counts[0] > 2
    assert ((out / "sweep.csv").read_bytes(), (out / "sweep.jsonl").read_bytes()) == expected


def test_a_folder_holds_one_sweep(grid: Path, tmp_path: Path, program: Program) -> None:
    out = tmp_path / "out"
    steptime.sweep(grid, out=out)
    other = {"workload.gradient_accumulation_steps": 4}
    with pytest.raises(steptime.Error, match="holds another sweep") as raised:
        steptime.sweep(grid, out=out, overrides=other)
    key = "workload.gradient_accumulation_steps=4"
    said = program("sweep", grid, "--out", out, "--set", key).stderr
    assert said == f"error: {raised.value}\n"
    assert steptime.sweep(grid, out=out, overrides=other, restart=True).header["points"] == 24


def test_a_killed_process_loses_nothing(grid: Path, tmp_path: Path, expected: tuple[bytes, bytes]) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    out = tmp_path / "killed"
    call = f"import steptime; steptime.sweep({str(grid)!r}, out={str(out)!r}, jobs=1)"
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", call])
        time.sleep(moments.uniform(0.05, 0.5))
        child.kill()
        child.wait()
    steptime.sweep(grid, out=out)
    assert ((out / "sweep.csv").read_bytes(), (out / "sweep.jsonl").read_bytes()) == expected


def test_what_is_wrong_with_a_sweep_is_said() -> None:
    with pytest.raises(steptime.Error, match=r"a section \[sweep\] with the axes"):
        steptime.sweep(GRID.split("[sweep]")[0])
    with pytest.raises(steptime.Error, match=r"<text>:12:1: workload.micro_batch_sise: unknown key"):
        steptime.sweep(GRID.replace('"workload.micro_batch_size" = [1, 4, 4096]', '"workload.micro_batch_sise" = [1]'))
