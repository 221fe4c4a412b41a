"""One scenario: the same answers as the program gives."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import steptime
from conftest import ROOT, Program

SMALL: dict[str, Any] = {
    "name": "small",
    "model": {"name": "gpt2", "sequence_length": 1024},
    "cluster": {"name": "dgx-h100"},
    "workload": {"micro_batch_size": 1, "gradient_accumulation_steps": 2, "precision": "bf16"},
    "parallelism": {"zero_stage": 1, "offload": {"optimizer": "none"}},
}

TEXT = """name = "small"
[model]
name = "gpt2"
sequence_length = 1024
[cluster]
name = "dgx-h100"
[workload]
micro_batch_size = 1
gradient_accumulation_steps = 2
precision = "bf16"
[parallelism]
zero_stage = 1
"""


def test_the_installed_package_is_tested() -> None:
    assert "site-packages" in steptime.__file__


SCENARIOS = sorted(path for path in ROOT.glob("scenarios/*.toml") if path.name != "Cargo.toml")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_path_gives_the_report_of_the_program(path: Path, program: Program) -> None:
    printed = program("run", path, "--json")
    assert printed.returncode in (0, 1), printed.stderr
    assert steptime.run(path) == json.loads(printed.stdout)


def predicted(report: dict[str, Any]) -> dict[str, Any]:
    """The report without the digest of the document, which tells two ways of writing one scenario apart."""
    return {key: value for key, value in report.items() if key != "scenario_hash"}


def test_text_a_dictionary_and_overrides_are_the_same_scenario() -> None:
    report = steptime.run(SMALL)
    assert report["schema"] == "steptime.report/1" and report["verdict"] == "fits"
    assert predicted(steptime.run(TEXT)) == predicted(report)
    other = steptime.run(TEXT, overrides={"workload.micro_batch_size": 2})
    assert other["step_time_s"] > report["step_time_s"]
    assert predicted(steptime.run(SMALL, overrides=["workload.micro_batch_size=2"])) == predicted(other)
    changed = {**SMALL, "workload": {**SMALL["workload"], "micro_batch_size": 2}}
    assert predicted(steptime.run(changed)) == predicted(other)
    # Text with quotes and backslashes arrives as it is; control characters do arrive, and are refused by the program.
    name = 'a "b" \\ ü'
    assert steptime.run({**SMALL, "name": name})["name"] == name
    with pytest.raises(steptime.Error, match=r"found .a\\u\{7f\}\\t"):
        steptime.run({**SMALL, "name": "a\x7f\t"})


def test_what_does_not_fit_is_an_answer() -> None:
    report = steptime.run(TEXT, overrides={"workload.micro_batch_size": 4096})
    assert report["verdict"] == "out_of_memory"
    assert report["remedies"], "the program names changes that would make it fit"


def test_errors_have_the_words_of_the_program(tmp_path: Path, program: Program) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(TEXT.replace("zero_stage", "zero_stege"))
    with pytest.raises(steptime.Error) as raised:
        steptime.run(path)
    assert program("run", path).stderr == f"error: {raised.value}\n"
    assert "wrong.toml:12:1: parallelism.zero_stege: unknown key" in str(raised.value)
    assert isinstance(raised.value, ValueError)
    with pytest.raises(steptime.Error, match="no-such.toml"):
        steptime.run("no-such.toml")
    with pytest.raises(TypeError, match="workload: NoneType has no form in a scenario"):
        steptime.run({**SMALL, "workload": None})
    with pytest.raises(TypeError, match="overrides is a mapping or a list"):
        steptime.run(SMALL, overrides="workload.micro_batch_size=2")


def test_files_beside_the_scenario_are_found(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(TEXT.replace('name = "gpt2"', 'hf = "config.json"'))
    with pytest.raises(steptime.Error, match="config.json"):
        steptime.run(path)
    (tmp_path / "config.json").write_text((ROOT / "tests/it/import/hf/gpt2.json").read_text())
    assert steptime.run(path)["parameters"] == steptime.run(TEXT)["parameters"]


def test_max_batch_search_and_check_are_those_of_the_program(tmp_path: Path, program: Program) -> None:
    path = tmp_path / "case.toml"
    path.write_text(TEXT)
    assert steptime.max_batch(path) == json.loads(program("max-batch", path, "--json").stdout)
    claimed = steptime.check(path, claim_time_s=1e-6)
    assert claimed == json.loads(program("check", path, "--claim-time", "1e-6", "--json").stdout)
    assert claimed["verdict"] == "rejected"
    path.write_text(TEXT.replace("zero_stage = 1", "") + "[search]\ntensor = [1, 2]\npipeline = [1]\n")
    found = steptime.search(path, jobs=2)
    assert found == json.loads(program("search", path, "--json").stdout)
    assert found["best"]["step_time_s"] > 0


def test_python_goes_on_while_something_is_computed() -> None:
    """The longest pause of this thread is a small part of what another one computes."""
    grid = {**SMALL, "sweep": {"workload.micro_batch_size": list(range(1, 65)), "parallelism.tensor": [1, 2, 4]}}
    ended: list[float] = []

    def compute() -> None:
        steptime.sweep(grid, jobs=1)
        ended.append(time.monotonic())

    begun = time.monotonic()
    worker = threading.Thread(target=compute)
    worker.start()
    ticks = 0
    while not ended:
        time.sleep(0.001)
        ticks += 1
    spent = ended[0] - begun
    # Were the lock held, this thread would get a tick between batches only, some four a second.
    assert ticks > 20 * spent, f"{ticks} ticks in {spent:.2f} s"
