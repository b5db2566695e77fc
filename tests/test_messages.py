"""What messages show of values and errors: one line, not too long, numbers as people write them."""

import pytest

from pointwise.messages import duration, first_line, rounded, shortened


def test_what_fits_stays_and_the_rest_becomes_an_ellipsis():
    assert shortened("a" * 60) == "a" * 60
    assert shortened("a" * 61) == "a" * 59 + "…"
    assert shortened("one two three", 9) == "one two…"


def test_errors_say_their_first_line_or_their_name():
    assert first_line(ValueError("\n  a line \nanother")) == "a line"
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("b" * 300)) == "b" * 200
    assert first_line(ValueError("b" * 300), most=None) == "b" * 300


@pytest.mark.parametrize("number", [10.0**power * 1.8072 for power in range(-7, 13)])
def test_numbers_are_never_in_powers_of_ten(number):
    for shown in (rounded(number), rounded(-number), duration(number)):
        assert "e" not in shown
        assert any(digit in shown for digit in "123456789")
    assert float(rounded(number).replace(",", "")) == pytest.approx(number, rel=0.01)


def test_numbers_are_rounded_before_their_form_is_chosen():
    assert [rounded(x) for x in (0, 5, 99.96, 999.4, 999.6, 1806)] == [
        "0", "5", "100", "999", "1,000", "1,806",
    ]  # fmt: skip
    assert [duration(x) for x in (0.0996, 999.4, 999.6, 1806, 99_940, 99_960, 119_600)] == [
        "0.0996 ms", "999 ms", "1 s", "1.81 s", "99.9 s", "1 min 40 s", "2 min 0 s",
    ]  # fmt: skip
