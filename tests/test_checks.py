import pytest

from snnbook.checks import check, check_choice


def test_an_allowed_value_passes_in_silence():
    assert check("x", 3, True, "at least 1") is None
    assert check_choice("colour", "red", ("red", "blue")) is None


@pytest.mark.parametrize("value, shown", [(0, "0"), ("a b", "'a b'"), (None, "None"), ([1, 2], "[1, 2]")])
def test_the_sentence_has_name_value_and_what_is_allowed(value, shown):
    with pytest.raises(ValueError) as error:
        check("time_steps", value, False, "at least 1")
    assert str(error.value) == f"time_steps = {shown} is not allowed: at least 1"


def test_a_wrong_choice_lists_the_choices_even_of_a_generator():
    with pytest.raises(ValueError, match=r"^colour = 'green' is not allowed: one of red, blue, 3$"):
        check_choice("colour", "green", (c for c in ("red", "blue", 3)))
