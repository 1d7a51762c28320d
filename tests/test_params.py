import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import example_parameters

from snnbook import fields, models, params
from snnbook.data import datasets
from snnbook.fields import Params


@pytest.fixture(scope="module")
def Example():
    with example_parameters() as cls:
        yield cls


def test_defaults_are_taken_and_lists_are_not_shared(Example):
    first, second = Example(), Example()
    assert first.time_steps == [1, 2] and first.threshold == 1.0 and first.share is None
    first.time_steps.append(3)
    assert second.time_steps == [1, 2]


def test_an_instance_is_frozen(Example):
    with pytest.raises(dataclasses.FrozenInstanceError):
        Example().levels = 3


def test_a_float_takes_an_int_and_becomes_a_float(Example):
    p = Example(threshold=2, share=1)
    assert (p.threshold, type(p.threshold)) == (2.0, float)
    assert (p.share, type(p.share)) == (1.0, float)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"threshold": "1"}, "threshold = '1' is not allowed: a value of type float"),
        ({"threshold": True}, "threshold = True is not allowed: a value of type float"),
        ({"threshold": 0}, "threshold = 0.0 is not allowed: 0.01 to 100"),
        ({"threshold": float("nan")}, "threshold = nan is not allowed: 0.01 to 100"),
        ({"threshold": None}, "threshold = None is not allowed: a value of type float"),
        ({"levels": 1.0}, "levels = 1.0 is not allowed: a value of type int"),
        ({"levels": False}, "levels = False is not allowed: a value of type int"),
        ({"levels": 0}, "levels = 0 is not allowed: at least 1"),
        ({"share": 1.5}, "share = 1.5 is not allowed: at most 1.0"),
        ({"share": "half"}, "share = 'half' is not allowed: a value of type float"),
        ({"time_steps": 4}, "time_steps = 4 is not allowed: a list with at least one element"),
        ({"time_steps": []}, r"time_steps = \[\] is not allowed: a list with at least one element"),
        ({"time_steps": [4, "8"]}, r"time_steps\[1\] = '8' is not allowed: a value of type int"),
        ({"time_steps": [4, 65]}, r"time_steps\[1\] = 65 is not allowed: 1 to 64"),
        ({"method": "tcl"}, "method = 'tcl' is not allowed: one of qc, qcfs"),
        ({"method": 3}, "method = 3 is not allowed: a value of type str"),
        ({"shift": 1}, "shift = 1 is not allowed: a value of type bool"),
        ({"seed": -1}, "seed = -1 is not allowed: 0 to 2147483647"),
        ({"device": "tpu"}, "device = 'tpu' is not allowed: one of auto, cpu, cuda"),
        ({"out_dir": None}, "out_dir = None is not allowed: a value of type str"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_with_name_value_and_what_is_allowed(Example, given, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Example(**given)


@given(st.integers(-200, 200))
def test_bounds_are_inclusive_for_each_element(Example, value):
    if 1 <= value <= 64:
        assert Example(time_steps=[1, value]).time_steps == [1, value]
    else:
        with pytest.raises(ValueError, match=r"time_steps\[1\]"):
            Example(time_steps=[1, value])


def test_read_takes_the_fields_out_of_a_namespace_and_nothing_else(Example):
    namespace = Example().asdict() | {"levels": 4, "unrelated": object()}
    assert Example.read(namespace) == Example(levels=4)


def test_read_names_a_parameter_that_the_notebook_does_not_define(Example):
    namespace = Example().asdict()
    del namespace["method"]
    with pytest.raises(KeyError, match="method"):
        Example.read(namespace)


def test_help_and_asdict_have_every_field(Example):
    names = {f.name for f in dataclasses.fields(Example)}
    assert Example.help()["levels"] == "quantisation steps L"
    assert set(Example.help()) == set(Example().asdict()) == names
    assert all(Example.help().values())


def test_the_prose_speaks_of_the_defaults_only(Example):
    assert Example().as_printed()
    assert Example(out_dir="x", data_dir="y", device="cpu", seed=3).as_printed()
    for other in ({"threshold": 2.0}, {"time_steps": [1]}, {"share": 0.5}, {"shift": True}):
        assert not Example(**other).as_printed()


@pytest.mark.parametrize("values, notes", [({}, 1), ({"seed": 3}, 1), ({"threshold": 2.0}, 0)])
@pytest.mark.parametrize("broken", [lambda: False, lambda: [][0], lambda: {}["key"], lambda: min([])])
def test_a_claim_that_does_not_hold_is_noted_where_the_text_makes_it(Example, monkeypatch, values, notes, broken):
    shown = []
    monkeypatch.setattr(fields, "display", shown.append)
    p, done = Example(**values), []
    with p.claims():
        assert broken()
        done.append("never")
    assert [note.data for note in shown] == notes * [fields.CLAIM_FAILS] and not done
    with p.claims():
        assert True
        done.append("now")
    assert len(shown) == notes and done == ["now"]


def test_a_mistake_in_a_claim_is_no_matter_of_rounding(Example):
    with pytest.raises(TypeError), Example().claims():
        assert 1 < "2"
    with Example(threshold=2.0).claims():
        assert 1 < "2"


def test_an_unknown_name_is_a_type_error(Example):
    with pytest.raises(TypeError, match="thresold"):
        Example(thresold=1.0)


def test_by_notebook_finds_classes_by_name(Example):
    assert params.by_notebook()["99_example"] is Example
    assert all(cls.notebook == name for name, cls in params.by_notebook().items())
    named = set(params.by_notebook().values())
    assert named >= {cls for cls in Params.__subclasses__() if cls.notebook}
    assert params.ConversionBenchmark in named and params.ConvertedNetworks not in named


def test_defaults_of_every_notebook_are_allowed_and_every_parameter_has_help():
    for cls in params.by_notebook().values():
        assert all(cls().help().values()), cls


def test_networks_that_can_be_chosen_exist_and_every_one_can_be_chosen():
    offered = set(params.CONVERTED) | set(params.SPLIT) | set(params.CUT)
    assert offered == set(models.VGG) | set(models.RESNET)
    assert set(params.IMAGE_SETS) <= set(datasets())
