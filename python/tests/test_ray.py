"""Sweeps on a real Ray of this machine, whose workers die."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import steptime
import steptime.ray
from conftest import GRID


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


def busy_workers() -> list[int]:
    """Processes that play a batch: Ray names its workers after what they do."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if command.startswith(b"ray::_play"):
                found.append(int(entry.name))
    return found


def kill_a_worker() -> int | None:
    """Kills one that is playing; None where none is found in ten seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for worker in busy_workers():
            os.kill(worker, signal.SIGKILL)
            return worker
    return None


def test_bytes_are_those_of_one_machine(grid: Path, tmp_path: Path, expected: tuple[bytes, bytes]) -> None:
    for batch in (None, 1, 100):
        result = steptime.ray.sweep(grid, batch=batch)
        assert (result.csv.encode(), result.jsonl.encode()) == expected
    steptime.ray.sweep(grid, out=tmp_path / "out")
    assert (tmp_path / "out/sweep.jsonl").read_bytes() == expected[1]


LONG = GRID.replace("gpt2", "llama3-8b").replace("[1, 4, 4096]", "[1, 2, 3, 4, 5, 6, 7, 8]")


def test_a_killed_worker_loses_nothing() -> None:
    """Killed at a moment that is another one in every run."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    moment = random.Random(seed).uniform(0.0, 0.5)
    killed: list[int | None] = []

    def after_some(there: int, points: int) -> None:
        if there >= moment * points and not killed:
            killed.append(kill_a_worker())

    result = steptime.ray.sweep(LONG, batch=2, progress=after_some)
    assert killed and killed[0] is not None, "no worker was killed in mid-sweep"
    alone = steptime.sweep(LONG)
    assert (result.csv, result.jsonl) == (alone.csv, alone.jsonl)


def test_what_came_back_is_kept_when_retries_are_used_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed: list[int | None] = []

    def after_some(there: int, points: int) -> None:
        if there >= points // 4 and not killed:
            killed.append(kill_a_worker())

    with pytest.raises(steptime.Error, match=r"points \d+ to \d+ were lost 1 times"):
        steptime.ray.sweep(LONG, batch=2, out=out, retries=0, progress=after_some)
    kept = (out / "sweep.journal").read_text().count("\n") - 1
    assert kept >= 8
    counts: list[int] = []
    result = steptime.ray.sweep(LONG, out=out, progress=lambda there, _: counts.append(there))
    assert counts[0] > kept, "what was kept is not played again"
    assert result.jsonl == steptime.sweep(LONG).jsonl


def test_files_travel_with_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run in another folder than the scenario."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "config.json").write_text(
        '{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 512, "num_hidden_layers": 4, '
        '"num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 1376, "vocab_size": 32000, '
        '"max_position_embeddings": 2048, "tie_word_embeddings": false, "rms_norm_eps": 1e-5, "hidden_act": "silu"}'
    )
    path = folder / "grid.toml"
    path.write_text(GRID.replace('name = "gpt2"', 'hf = "config.json"'))
    assert steptime.ray.sweep(path, batch=3).csv == steptime.sweep(path).csv


def test_mistakes_are_raised_here() -> None:
    with pytest.raises(steptime.Error, match="unknown key"):
        steptime.ray.sweep(GRID.replace('"parallelism.tensor"', '"parallelism.tenser"'))
    with pytest.raises(ValueError, match="batch: found 0"):
        steptime.ray.sweep(GRID, batch=0)
