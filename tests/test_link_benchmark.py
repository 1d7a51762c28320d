"""The benchmark of the link, as small as it goes."""

import pandas as pd
import pytest

from benchmarks import link
from snnbook.link.kernel_link import why_not
from snnbook.runs import recorded


def test_the_benchmark_of_the_link_measures_and_records(tmp_path, capsys):
    small = {"elements": [64], "devices": [1], "model": "vgg5", "width": 0.05, "time_steps": 2, "samples": 10,
             "payloads": [2500], "garbage": 200, "repeats": 3}  # fmt: skip
    words = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    link.main([*words, "--out_dir", str(tmp_path)])
    manifest, tables = recorded(tmp_path)
    assert manifest["command"].startswith("python -m benchmarks.link --elements '[64]'")
    assert set(tables) == {"payload", "shaped", "loopback", "garbage", "kernel"}
    assert (tables["loopback"]["differing"] == 0).all() and list(tables["loopback"]["window"]) == [1, 4]
    assert tables["shaped"]["ideal_s"][0] == 0.02 and tables["shaped"]["ratio"][0] > 1
    kernel = tables["kernel"].iloc[0]
    assert kernel["payload_bytes"] == 2500 and 1 < kernel["headers"] < 1.1
    assert 1 < kernel["ratio"] < 1.3 if not why_not() else pd.isna(kernel["ratio"])
    assert tables["garbage"]["dropped"][0] == 200 and tables["garbage"]["differing"][0] == 0
    assert isinstance(tables["payload"], pd.DataFrame) and "loopback" in capsys.readouterr().out


def test_what_it_takes_is_checked(tmp_path):
    with pytest.raises(ValueError, match=r"devices\[0\] = 0 is not allowed: 1 to 64"):
        link.main(["--devices", "[0]", "--out_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
