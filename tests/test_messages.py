"""What messages show of values and errors: one line, not too long."""

from pointwise.messages import first_line, shortened


def test_what_fits_stays_and_the_rest_becomes_an_ellipsis():
    assert shortened("a" * 60) == "a" * 60
    assert shortened("a" * 61) == "a" * 59 + "…"
    assert shortened("one two three", 9) == "one two…"


def test_errors_say_their_first_line_or_their_name():
    assert first_line(ValueError("\n  a line \nanother")) == "a line"
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("b" * 300)) == "b" * 200
    assert first_line(ValueError("b" * 300), most=None) == "b" * 300
