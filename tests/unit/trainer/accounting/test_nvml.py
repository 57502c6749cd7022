"""Energy and health through the real nvidia-ml-py, on a driver library that is built here."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.accounting.nvml import Gpus, HealthWatch
from trainer.spec import DeviceHealth, TrialSpec, worsened

SOURCE = Path(__file__).with_name("fake_nvml.c")
ROOT = Path(__file__).parents[4]
FIRST = "GPU-00000000-0000-0000-0000-000000000000"
SECOND = "11111111-1111-1111-1111-111111111111"

Child = Callable[..., Any]
MakeSpec = Callable[..., TrialSpec]

_PRELUDE = """
import json, os, sys
from trainer.accounting.nvml import Gpus, HealthWatch

def set(**values):
    with open(os.environ["FAKE_NVML"], "a") as file:
        for key, value in values.items():
            file.write(f"{key[1:].replace('_', '.', 1)}={value}\\n")

def out(value):
    sys.stdout.write(json.dumps(value))
"""


@pytest.fixture(scope="session", params=["new", "old"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(age, folder) of a libnvidia-ml.so.1."""
    return request.param, build(tmp_path_factory.mktemp(request.param), request.param)


def build(folder: Path, age: str) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("the fake driver library needs a C compiler (cc or gcc), and there is none")
    options = ["-DOLD"] if age == "old" else []
    command = [compiler, "-shared", "-fPIC", *options, "-o", str(folder / "libnvidia-ml.so.1"), str(SOURCE)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


@pytest.fixture
def child(library: tuple[str, Path], tmp_path: Path) -> Child:
    """Runs code in a process that finds the library; what it gave to `out`."""

    def run(code: str, *arguments: str) -> Any:
        return run_child(library[1], tmp_path, code, *arguments)

    return run


def run_child(folder: Path, tmp_path: Path, code: str, *arguments: str) -> Any:
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "FAKE_NVML": str(tmp_path / "state"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", _PRELUDE + textwrap.dedent(code), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_energy_is_that_of_all_gpus_and_unknown_where_one_does_not_count(child: Child) -> None:
    values = child(
        f"""
        set(_0_energy=1_500_000, _1_energy=250)
        both, one, strange = Gpus(["{FIRST}", "{SECOND}"]), Gpus(["{SECOND}"]), Gpus(["GPU-x", "{FIRST}"])
        values = [both.energy_joules(), one.energy_joules(), strange.energy_joules()]
        set(_0_energy=1_500_400)
        values.append(both.energy_joules())
        set(_1_energy=-3)
        out([*values, both.energy_joules(), Gpus([]).energy_joules()])
        """
    )
    assert values == [1500.25, 0.25, None, 1500.65, None, None]


def test_a_gpu_that_is_cut_into_parts_has_no_energy_of_its_own(child: Child, library: tuple[str, Path]) -> None:
    joules = child(f'set(_0_energy=1000, _0_mig=1)\nout([Gpus(["{FIRST}"]).energy_joules()])')
    assert joules == ([None] if library[0] == "new" else [1.0])


def test_health_is_read_whole(child: Child, library: tuple[str, Path]) -> None:
    health = child(
        f"""
        set(_0_temperature=63, _0_volatile=2, _0_aggregate=9, _0_corrected_rows=1, _0_uncorrected_rows=2,
            _0_remapping=1, _0_single_bit=3, _0_double_bit=1, _0_retiring=1, _0_throttling=0x40 | 0x4 | 0x1,
            _0_xid0=79, _0_xid1=48)
        gpus = Gpus(["{FIRST}"])
        out([gpus.health()[0].model_dump(), gpus.health()[0].xids])
        """
    )
    known_by_new = {
        "remapped_rows": 3,
        "remapping_pending": True,
        "remapping_failed": False,
        "throttling": ["sw_power_cap", "hw_thermal_slowdown"],
    }
    unknown: dict[str, Any] = {
        "remapped_rows": None,
        "remapping_pending": None,
        "remapping_failed": None,
        "throttling": [],
    }
    assert health[0] == {
        "uuid": FIRST,
        "name": "NVIDIA A100-SXM4-40GB",
        "temperature_celsius": 63,
        "slowdown_celsius": 90,
        "ecc_uncorrected_volatile": 2,
        "ecc_uncorrected_aggregate": 9,
        "retired_pages": 4,
        "retirement_pending": True,
        "xids": [79, 48],
        "lost": False,
        **(known_by_new if library[0] == "new" else unknown),
    }
    assert health[1] == []  # told once


def test_what_gets_worse_is_told_once(child: Child) -> None:
    looks = child(
        f"""
        watch, looks = HealthWatch(Gpus(["{FIRST}", "{SECOND}"])), []
        def look(**values):
            set(**values)
            looks.append([notice.model_dump() for notice in watch.look()])
        look(_0_aggregate=9, _0_temperature=60)
        look(_0_temperature=89)
        look(_0_aggregate=10, _0_volatile=1, _1_xid0=63)
        look()
        look(_0_temperature=91, _1_xid1=94, _1_xid2=94)
        look(_0_energy=-15, _0_temperature=-15)
        look()
        out(looks)
        """
    )
    assert looks[0] == looks[1] == looks[3] == looks[6] == []
    first, second = looks[2]
    assert first["kind"] == "device_health"
    assert first["values"] == {
        "ecc_uncorrected_volatile": 1,
        "ecc_uncorrected_volatile_before": 0,
        "ecc_uncorrected_aggregate": 10,
        "ecc_uncorrected_aggregate_before": 9,
    }
    assert first["message"].startswith(f"NVIDIA A100-SXM4-40GB {FIRST}: 1 uncorrected memory errors")
    assert second["values"] == {"xid": 63, "xids": 1}
    assert SECOND in second["message"]
    assert [notice["values"] for notice in looks[4]] == [
        {"temperature_celsius": 91},
        {"xid": 94, "xids": 2, "fault_xid": 94},
    ]
    assert [notice["values"] for notice in looks[5]] == [{"lost": 1}]


def test_a_run_on_a_gpu_reports_its_energy_and_health(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, make_spec: MakeSpec
) -> None:
    """A joule is burnt before every turn of the slice; the first one came before the slice had the device."""
    trial = tmp_path / "trial.yaml"
    trial.write_text(json.dumps(make_spec(epochs=1.0).model_dump()))
    summary, turns, stderr = run_child(
        build(tmp_path_factory.mktemp("slice"), "new"),
        tmp_path,
        f"""
        import io
        from contextlib import redirect_stderr, redirect_stdout
        from trainer.worker import resident_trials, slice_run
        from trainer.__main__ import main

        resident_trials.device_uuids = lambda device: ("{FIRST}",)
        set(_0_xid0=79)
        tick, turns = slice_run.SliceRun.tick, []

        def burn_and_tick(run):
            turns.append(1)
            set(_0_energy=5000 + 1000 * len(turns))
            return tick(run)

        slice_run.SliceRun.tick = burn_and_tick
        said, summary = io.StringIO(), io.StringIO()
        with redirect_stderr(said), redirect_stdout(summary):
            assert main(["run", sys.argv[1], "--output-dir", sys.argv[2], "--threads", "1"]) == 0, said.getvalue()
        out([json.loads(summary.getvalue().splitlines()[-1]), len(turns), said.getvalue()])
        """,
        str(trial),
        str(tmp_path / "out"),
    )
    assert summary["steps"] == 5
    assert turns > 5
    assert summary["energy_joules"] == turns - 1
    assert f"{FIRST}: XID 79" in stderr


def test_without_a_driver_there_is_nothing_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    code = f'gpus = Gpus(["{FIRST}"])\nout([gpus.energy_joules(), gpus.health(), HealthWatch(gpus).look()])'
    assert run_child(tmp_path, tmp_path, code) == [None, [], []]


@pytest.mark.parametrize(
    ("before", "now", "values"),
    [
        ({"remapped_rows": None}, {"remapped_rows": 4}, None),
        ({"retired_pages": 1}, {"retired_pages": 3}, {"retired_pages": 3, "retired_pages_before": 1}),
        (None, {"remapping_failed": True, "retired_pages": 3}, {"remapping_failed": 1}),
        ({"remapping_failed": True}, {"remapping_failed": True}, None),
        (None, {"throttling": ("sw_power_cap",)}, None),
        (None, {"throttling": ("hw_power_brake",)}, {"throttling_hw_power_brake": 1}),
        ({"throttling": ("hw_slowdown",)}, {"throttling": ("hw_slowdown",)}, None),
        (None, {"temperature_celsius": 95.0}, None),
    ],
)
def test_only_the_worse_counts(
    before: dict[str, Any] | None, now: dict[str, Any], values: dict[str, float] | None
) -> None:
    notice = worsened(
        None if before is None else DeviceHealth(uuid="GPU-1", **before), DeviceHealth(uuid="GPU-1", **now)
    )
    assert (notice and notice.values) == values


def test_no_gpus_were_asked_for() -> None:
    assert Gpus(()).health() == ()
    assert HealthWatch(Gpus(())).look() == ()
