"""What the tests share: the program to compare with, and a sweep."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(os.environ["STEPTIME_ROOT"])

GRID = """name = "grid"
[model]
name = "gpt2"
sequence_length = 1024
[cluster]
name = "dgx-h100"
[workload]
micro_batch_size = 1
gradient_accumulation_steps = 8
precision = "bf16"
[sweep]
"workload.micro_batch_size" = [1, 4, 4096]
"parallelism.tensor" = [1, 2]
"parallelism.pipeline" = [1, 3]
"parallelism.zero_stage" = [0, 1]
"""
"""Points that fit, points that run out of memory, and points that cannot be."""

Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def program() -> Program:
    """The program; the environment says where it is."""
    path = os.environ["STEPTIME"]

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        given = [path, *map(str, arguments)]
        return subprocess.run(given, capture_output=True, text=True, check=False)

    return call


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


@pytest.fixture
def expected(grid: Path, tmp_path: Path, program: Program) -> tuple[bytes, bytes]:
    """What the program makes of the grid."""
    out = tmp_path / "expected"
    assert program("sweep", grid, "--out", out, "--quiet").returncode == 0
    return (out / "sweep.csv").read_bytes(), (out / "sweep.jsonl").read_bytes()
