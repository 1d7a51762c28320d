"""Every notebook under papermill: values out of range are refused early, other values run and are recorded."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import papermill
import pytest

from snnbook import params

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[dict]:
    """The cells of a notebook."""
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_every_notebook_has_a_parameter_class_and_every_class_a_notebook():
    known = {name for name, cls in params.by_notebook().items() if cls.__module__ == params.__name__}
    assert known == {path.stem for path in NOTEBOOKS}


def bad_value(field: dataclasses.Field) -> object:
    """A value outside the bounds or choices of ``field``."""
    meta = field.metadata
    if meta["choices"] is not None:
        return "no such choice"
    return meta["low"] - 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_bad_parameter_fails_in_the_next_cell_and_writes_nothing(path, tmp_path):
    cls = params.by_notebook()[path.stem]
    field = next(f for f in dataclasses.fields(cls) if f.metadata["choices"] or f.metadata["low"] is not None)
    value = bad_value(field)
    default = getattr(cls(), field.name)
    value = [value] if isinstance(default, list) else value
    out = tmp_path / "run"
    with pytest.raises(papermill.PapermillExecutionError) as error:
        papermill.execute_notebook(
            str(path),
            str(tmp_path / "out.ipynb"),
            {field.name: value, "out_dir": str(out)},
            progress_bar=False,
            kernel_name="python3",
            cwd=str(path.parent),
        )
    assert error.value.ename == "ValueError"
    assert field.name in error.value.evalue and "not allowed" in error.value.evalue
    executed = [c for c in cells(tmp_path / "out.ipynb") if c["cell_type"] == "code"]
    failed = [i for i, c in enumerate(executed) if any(o["output_type"] == "error" for o in c["outputs"])]
    injected = next(i for i, c in enumerate(executed) if "injected-parameters" in c["metadata"].get("tags", []))
    assert failed == [injected + 1]
    assert not out.exists()


@pytest.mark.parametrize(
    "name, given, said",
    [
        ("30_split_points", {"split_points": [4, 17]}, "split_points = [17] is not allowed: 1 to 4"),
        ("34_noisy_channels", {"keep": 0.05}, "keep = 0.05 is not allowed: at least 0.0625 for 8 of 128 channels"),
        ("34_noisy_channels", {"model": "resnet20", "blocks": [1, 1, 1], "channels": 4}, "time_steps = 4"),
    ],
)
def test_what_does_not_fit_the_network_fails_before_anything_is_trained(name, given, said, tmp_path):
    path = next(p for p in NOTEBOOKS if p.stem == name)
    out, given = tmp_path / "out.ipynb", {**given, "out_dir": str(tmp_path / "run")}
    with pytest.raises(papermill.PapermillExecutionError) as error:
        papermill.execute_notebook(
            str(path), str(out), given, progress_bar=False, kernel_name="python3", cwd=str(path.parent)
        )
    assert error.value.ename == "ValueError" and said in error.value.evalue
    executed = [c for c in cells(out) if c["cell_type"] == "code"]
    failed = [i for i, c in enumerate(executed) if any(o["output_type"] == "error" for o in c["outputs"])]
    assert "injected-parameters" in executed[failed[0] - 1]["metadata"].get("tags", [])


#: Other parameters that keep a run short, by notebook.
OTHER = {
    "01_spiking_neurons": {"threshold": 2.0, "tau": 50.0, "time_steps": 12},
    "02_energy_accounting": {"epochs": 1, "time_steps": 3, "samples": 32},
    "03_speed": {"time_steps": 2, "batch": 2, "channels": 8},
    "10_conversion_errors": {"threshold": 0.5, "time_steps": [2, 4], "samples": 2000},
    "11_rmpe_derivation": {"seed": 3},
    "12_two_stage_conversion": {
        "model": "vgg5",
        "epochs": 1,
        "fine_tune_epochs": 1,
        "repeats": 1,
        "time_steps": [2, 5],
        "calibrated_steps": [2],
        "tuned_steps": [1],
        "shown_steps": 2,
        "images": [8],
        "tune_epochs": 1,
        "quant_steps": 4,
    },
    "13_conversion_benchmark": {
        "model": "vgg5",
        "epochs": 1,
        "fine_tune_epochs": 1,
        "samples": 16,
        "methods": ["qcfs", "lmpc", "srp"],
        "time_steps": [2, 3],
    },
    "14_conversion_energy": {
        "model": "vgg5",
        "epochs": 1,
        "fine_tune_epochs": 1,
        "samples": 16,
        "methods": ["opi", "srp"],
        "time_steps": [2, 5],
        "energy_model": "45nm_int8",
    },
    "20_class_specific_filters": {
        "width": 0.125,
        "warm_epochs": 1,
        "epochs": 1,
        "n_devices": 3,
        "zeta": 85.0,
        "zetas": [80.0, 90.0],
        "time_steps": 2,
        "draws": 1,
    },
    "21_split_prune_tradeoffs": {
        "dataset": "digits_events",
        "width": 0.125,
        "warm_epochs": 1,
        "epochs": 1,
        "rewarm_epochs": 1,
        "retrain_epochs": 1,
        "fusion_epochs": 1,
        "fusion": "probe",
        "n_devices": 2,
        "numbers": [1, 2],
        "zeta": 95.0,
        "zetas": [92.0, 96.0],
        "time_steps": 2,
        "samples": 16,
    },
    "22_placement": {
        "warm_epochs": 1,
        "epochs": 1,
        "n_devices": 3,
        "zeta_step": 5.0,
        "profiles": ["microcontroller", "phone"],
        "rule": "min_latency",
        "numbers": [1, 2],
        "instances": 5,
    },
    "23_fused_inference": {
        "warm_epochs": 1,
        "epochs": 1,
        "retrain_epochs": 1,
        "fusion_epochs": 1,
        "samples": 16,
        "hard_reset": True,
        "n_devices": 3,
        "devices": [2, 3],
        "rules": ["probe"],
        "fusion": "probe",
        "requests": 5,
    },
    "24_sensing_modalities": {
        "dataset": "digits_events",
        "time_steps": 3,
        "warm_epochs": 1,
        "epochs": 1,
        "retrain_epochs": 1,
        "fusion_epochs": 1,
        "fusion": "probe",
        "samples": 16,
        "n_devices": [2],
    },
    "30_split_points": {
        "epochs": 1,
        "warm_epochs": 1,
        "fine_tune_epochs": 1,
        "samples": 16,
        "split_points": [2],
        "ratios": [8],
        "strides": [1],
        "qualities": [50],
    },
    "31_bottleneck_codec": {
        "epochs": 1,
        "warm_epochs": 1,
        "fine_tune_epochs": 1,
        "samples": 16,
        "codec_epochs": 1,
        "split_points": [3],
        "bits": [4],
        "time_steps": 3,
        "channels": 8,
    },
    "32_compression_accuracy": {
        "epochs": 1,
        "warm_epochs": 1,
        "codec_epochs": 1,
        "fine_tune_epochs": 1,
        "samples": 16,
        "time_steps": [1],
        "split_points": [3],
        "search_ratios": [0],
        "rate_split_point": 4,
        "rate_steps": [2],
        "budgets": [2],
        "bits": [1],
        "contexts": ["channel"],
        "qualities": [50],
        "radio": "LTE",
    },
    "33_energy_tables": {
        "epochs": 1,
        "warm_epochs": 1,
        "fine_tune_epochs": 1,
        "samples": 16,
        "order": "post",
        "radio": "3G",
    },
    "35_co_inference": {
        "epochs": 1,
        "warm_epochs": 1,
        "fine_tune_epochs": 1,
        "split_point": 1,
        "channels": 2,
        "requests": 6,
        "rates": [100e3],
        "rate": 200e3,
        "windows": [1, 3],
        "confidence": 0.4,
        "thresholds": [0.2, 0.9],
    },
    "40_planner": {
        "conversion": "model='vgg5', epochs=1, fine_tune_epochs=1, methods=['qcfs', 'srp'], time_steps=[1, 2],"
        "samples=16",
        "splitting": "width=0.125, time_steps=2, warm_epochs=1, epochs=1, rewarm_epochs=0, retrain_epochs=1,"
        "fusion_epochs=1, fusion='probe', numbers=[2], zetas=[95.0], samples=16",
        "bottleneck": "epochs=1, warm_epochs=1, fine_tune_epochs=1, samples=16, split_points=[2], ratios=[8],"
        "strides=[1], qualities=[50]",
        "numbers": [2],
        "profile": "microcontroller",
        "radio": "LTE",
        "rates": [1e4, 1e6],
        "shared": False,
        "floor": 0.05,
        "lowest_floor": 0.01,
        "deadline": 10.0,
        "by": "busiest_joules",
        "account": "counted",
    },
    "34_noisy_channels": {
        "warm_epochs": 1,
        "epochs": 1,
        "codec_epochs": 1,
        "fine_tune_epochs": 1,
        "time_steps": 2,
        "channels": 2,
        "channel": "byte_erasure",
        "ber": [0.0, 0.2],
        "losses": [0.5],
        "ebn0": [0.0],
        "code_rates": [0.5],
        "packets": 5,
        "samples": 10,
        "draws": 1,
    },
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_other_parameters_run_and_leave_a_manifest(path, tmp_path):
    out = tmp_path / "run"
    papermill.execute_notebook(
        str(path),
        str(tmp_path / "out.ipynb"),
        OTHER[path.stem] | {"out_dir": str(out)},
        progress_bar=False,
        kernel_name="python3",
        cwd=str(path.parent),
    )
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["notebook"] == path.stem
    assert {k: manifest["parameters"][k] for k in OTHER[path.stem]} == OTHER[path.stem]
    assert manifest["files"] and all((out / name).exists() for name in manifest["files"])
    assert not list(out.glob("*.part"))


#: One point, which correlates with nothing, and a network that is silent behind its first layers.
FEW = {
    "13_conversion_benchmark": {"methods": ["qcfs"], "time_steps": [4]},
    "14_conversion_energy": {"methods": ["qc"], "time_steps": [2]},
}


@pytest.mark.parametrize("name", FEW)
def test_one_method_at_one_time_is_enough(name, tmp_path):
    given = OTHER[name] | FEW[name] | {"out_dir": str(tmp_path / "run")}
    path = next(path for path in NOTEBOOKS if path.stem == name)
    out = str(tmp_path / "out.ipynb")
    papermill.execute_notebook(str(path), out, given, progress_bar=False, kernel_name="python3", cwd=str(path.parent))
    assert (tmp_path / "run" / "run.json").exists()


#: A chapter of each part that trains.
WITH_OWN_DATA = ["13_conversion_benchmark", "21_split_prune_tradeoffs", "30_split_points"]


@pytest.mark.parametrize("name", WITH_OWN_DATA)
def test_chapters_run_on_a_file_of_ones_own(name, tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    x = (40 * y[:, None, None] + rng.integers(0, 60, (240, 16, 16))).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    given = OTHER[name] | {"dataset": "npz", "data_dir": str(tmp_path / "mine.npz"), "out_dir": str(tmp_path / "run")}
    names = params.by_notebook()[name].help()
    given |= {k: 40 for k in ("calibration", "validation") if k in names}
    path = next(path for path in NOTEBOOKS if path.stem == name)
    out = str(tmp_path / "out.ipynb")
    papermill.execute_notebook(str(path), out, given, progress_bar=False, kernel_name="python3", cwd=str(path.parent))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["parameters"]["dataset"] == "npz"
