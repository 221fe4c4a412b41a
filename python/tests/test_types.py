"""The stubs: they agree with the code, and a checker finds a wrong call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

USE = """
import steptime, steptime.ray

report: dict[str, object] = steptime.run({"name": "x"}, overrides={"workload.micro_batch_size": 4})
result: steptime.SweepResult = steptime.sweep("grid.toml", out="out", progress=lambda there, points: None)
other: steptime.SweepResult = steptime.ray.sweep("grid.toml", retries=2)
text: str = result.csv
"""

WRONG = """
import steptime

steptime.run(4)
steptime.sweep("grid.toml", job=2)
number: int = steptime.sweep("grid.toml").csv
"""


def mypy(*arguments: str) -> tuple[int, str]:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", "/dev/null", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return checked.returncode, checked.stdout + checked.stderr


def test_right_calls_pass_and_wrong_ones_are_found(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(USE)
    wrong.write_text(WRONG)
    assert mypy(str(right)) == (0, "Success: no issues found in 1 source file\n")
    code, found = mypy(str(wrong))
    assert code == 1
    for what in ('"int"; expected', 'Unexpected keyword argument "job"', "Incompatible types in assignment"):
        assert what in found, found


def test_the_package_keeps_its_own_types() -> None:
    code, found = mypy("-p", "steptime")
    assert code == 0, found


def test_the_stub_of_the_compiled_part_is_complete() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "steptime._steptime", "--ignore-disjoint-bases"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
