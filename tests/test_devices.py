"""Device profiles: every figure with its unit and source, read as written, refused when wrong."""

import math
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from snnbook.splitting import devices
from snnbook.splitting.devices import UNITS, Device, device, fleet, profiles

FOLDER = Path(devices.__file__).parent.parent / "profiles"


def toml(**changes) -> str:
    """A profile as text: figures that are all 2.5, with ``changes`` (None leaves one out)."""
    figures = {name: 2.5 for name in UNITS if name != "ac_rate"} | changes
    tables = [f'[{n}]\nvalue = {v}\nsource = "measured"' for n, v in figures.items() if v is not None]
    return "\n".join(tables)


@pytest.fixture
def write(tmp_path):
    def to_file(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return to_file


def test_the_four_kinds_of_the_book_are_there():
    assert profiles() == ["jetson_nano", "microcontroller", "phone", "raspberry_pi_4b"]


@pytest.mark.parametrize("name", profiles())
def test_profiles_are_read_as_written_and_every_figure_has_a_source(name):
    given, d = tomllib.loads((FOLDER / f"{name}.toml").read_text()), device(name)
    for figure in UNITS:
        entry = given.get(figure, given["mac_rate"])
        assert getattr(d, figure) == entry["value"]
        assert d.sources[figure] == entry["source"] and len(entry["source"]) > 20
    assert d.name == name and d.title == given["name"] and not d.skips_zeros
    table = devices.sources(name)
    assert list(table["figure"]) == list(UNITS) and list(table["unit"]) == list(UNITS.values())


def test_figures_follow_from_what_their_sources_say():
    """The derivations, done again from the numbers in the texts."""
    pi, chip, phone, jetson = (device(n) for n in ("raspberry_pi_4b", "microcontroller", "phone", "jetson_nano"))
    watts = (1.280 - 0.575) * 5
    assert pi.mac_rate == 0.35e9
    assert pi.energy_budget == pytest.approx(watts)
    assert pi.joules_per_mac == pytest.approx(watts / pi.mac_rate, rel=0.01)
    assert pi.joules_per_bit == pytest.approx(0.3 / 941e6, rel=0.01) == jetson.joules_per_bit
    assert chip.memory == 2**20 - 80 * 1024
    assert chip.mac_rate == pytest.approx(24.7e6 / 2 / 0.0991, rel=0.001)
    assert chip.joules_per_mac == pytest.approx(1082 / 7 * 1e-3 / chip.mac_rate, rel=0.01)
    assert chip.joules_per_bit == pytest.approx(0.180 * 3.3 / 20e6, rel=0.01)
    assert chip.energy_budget == pytest.approx(2 * 1.5 * 2.5 * 3600 / 86400, rel=0.01)
    assert phone.mac_rate == pytest.approx(569e6 / 0.0140, rel=0.01)
    assert phone.joules_per_mac == pytest.approx(2.543 / phone.mac_rate, rel=0.01)
    assert phone.joules_per_bit == pytest.approx((438.39 * 6 + 1288.04) * 1e-3 / 6e6, rel=0.01)
    assert phone.energy_budget == pytest.approx(2.8 * 3.85 * 3600 / 86400, rel=0.01)
    assert jetson.mac_rate == pytest.approx(6.5 * 26.8e9 / 2, rel=0.01)
    assert jetson.joules_per_mac == pytest.approx(10 / jetson.mac_rate, rel=0.01)


@pytest.mark.parametrize("name", ["raspberry_pi_4b", "jetson_nano"])
def test_sources_say_which_energies_are_bounds_and_on_which_side(name):
    sources = device(name).sources
    assert "upper bound" in sources["joules_per_mac"] and "upper bound" in sources["joules_per_ac"]
    assert "lower bound" in sources["joules_per_bit"]


def test_the_package_brings_its_profiles():
    given = tomllib.loads((FOLDER.parent.parent / "pyproject.toml").read_text())
    assert "profiles/*.toml" in given["tool"]["setuptools"]["package-data"]["snnbook"]


def test_a_profile_of_ones_own(write):
    d = device(write('name = "Mine"\nskips_zeros = true\n' + toml(ac_rate=10, joules_per_bit=0)))
    assert (d.name, d.title, d.skips_zeros) == ("mine", "Mine", True)
    assert d.ac_rate == 10 and d.mac_rate == 2.5 and d.joules_per_bit == 0
    assert device(str(write(toml()))).ac_rate == 2.5  # that of MACs where it is not given


def test_the_profile_of_the_guide_is_one(write):
    text = (FOLDER.parent.parent / "book" / "guide.md").read_text(encoding="utf-8")
    d = device(write(text.split("```toml\n")[1].split("```")[0]))
    assert d.title == "Board on my desk" and d.joules_per_ac == d.joules_per_mac == 0.8 / d.mac_rate


@pytest.mark.parametrize(
    "text, message",
    [
        (toml(memory=None), r"missing figures = \['memory'\]"),
        (toml(mac_rate=None), r"missing figures = \['mac_rate', 'ac_rate'\]"),
        (toml(weight=3), "mine.toml: figure = 'weight' is not allowed: one of memory"),
        (toml(memory=-1), "mine: memory = -1 is not allowed: a positive number"),
        (toml(memory=0), "memory = 0"),
        (toml(link_rate="nan"), "link_rate = nan"),
        (toml(joules_per_mac=-1e-9), "joules_per_mac = -1e-09 .* at least 0"),
        (toml(energy_budget="true"), "energy_budget = True"),
        (toml(mac_rate='"fast"'), "mac_rate = 'fast'"),
        (toml() + '\n[ac_rate]\nvalue = 1\nsource = " "', "source of ac_rate"),
        (toml() + "\n[ac_rate]\nvalue = 1", "value and source"),
        (toml() + '\n[ac_rate]\nvalue = 1\nsource = "x"\nunit = "y"', "no more"),
        ("memory = 3\n" + toml(memory=None), "memory = 3 .* a table with value and source"),
        ('skips_zeros = "yes"\n' + toml(), "skips_zeros = 'yes' .* true or false"),
        ("memory 3", "mine.toml is no profile"),
    ],
)
def test_bad_profiles_are_refused_by_name(write, text, message):
    with pytest.raises(ValueError, match=message):
        device(write(text))


def test_unknown_profiles_are_refused(tmp_path):
    with pytest.raises(ValueError, match="profile = 'abacus' is not allowed: one of jetson_nano"):
        device("abacus")
    with pytest.raises(ValueError, match="one of jetson_nano.*raspberry_pi_4b, or the path of a .toml file"):
        device(tmp_path / "abacus.json")
    with pytest.raises(ValueError, match="nowhere.toml.* an existing file"):
        device("nowhere.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(ValueError, match="is no profile"):
        device(tmp_path / "latin.toml")


def test_fleets_are_numbered_and_dealt_out_in_turn():
    five = fleet("raspberry_pi_4b", 5)
    assert [d.name for d in five] == [f"raspberry_pi_4b {i}" for i in range(1, 6)]
    assert {replace(d, name="") for d in five} == {replace(device("raspberry_pi_4b"), name="")}
    assert [d.name for d in fleet(["phone", "jetson_nano"], 3)] == ["phone 1", "jetson_nano 2", "phone 3"]
    for bad in ((["phone"], 0), ([], 2)):
        with pytest.raises(ValueError, match="not allowed"):
            fleet(*bad)


def test_kinds_are_read_once_each_and_told_apart_by_their_names(write, tmp_path):
    mine = str(write(toml()))
    assert [d.name for d in devices.kinds(["phone", mine, "jetson_nano", mine])] == ["phone", "mine", "jetson_nano"]
    (tmp_path / "phone.toml").write_text(toml())
    with pytest.raises(ValueError, match=r"profiles = \['phone', 'phone'\] .* files of different names"):
        devices.kinds(["phone", tmp_path / "phone.toml"])


def test_memory_can_be_limited():
    pi, chip = devices.limited(fleet(["raspberry_pi_4b", "microcontroller"], 2), 10**6)
    assert pi.memory == 10**6 and chip.memory == 966_656 and pi.name == "raspberry_pi_4b 1"
    with pytest.raises(ValueError, match="memory"):
        devices.limited([pi], 0)


def test_table_has_a_row_a_device():
    table = devices.table(fleet("phone", 2))
    assert list(table.columns) == ["device", *UNITS, "skips_zeros"]
    assert table["memory"].tolist() == [1.5e9] * 2


def test_infinite_figures_are_allowed_where_something_never_binds():
    figures = dict.fromkeys(UNITS, math.inf)
    assert Device("free", **figures).memory == math.inf
