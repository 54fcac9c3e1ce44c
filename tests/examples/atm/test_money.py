"""Amounts as people type and read them; ATM-01."""

import pytest

from examples.atm.money import LIMIT, format_amount, is_amount, parse_amount


@pytest.mark.parametrize(
    ("text", "amount"), [("20", 2000), ("12.50", 1250), (" 0.5 ", 50), ("-3", -300), ("+1", 100), ("0", 0)]
)
def test_typed_amounts_become_smallest_units(text: str, amount: int) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize(
    "text", ["", "ten", "1.234", "1,50", "1e3", "nan", "inf", "0x10", "\uff11\uff12", "1 000", "9" * 30]
)
def test_text_that_is_no_amount_is_named_in_the_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an amount; type a number such as 20 or 12\.50"):
        parse_amount(text)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(1250, "12.50 EUR"), (5, "0.05 EUR"), (-5, "-0.05 EUR"), (123456789, "1 234 567.89 EUR")],
)
def test_amounts_are_written_as_people_read_them(amount: int, text: str) -> None:
    assert format_amount(amount) == text


def test_an_amount_is_an_int_above_0_and_up_to_the_limit() -> None:
    assert is_amount(1)
    assert is_amount(LIMIT)
    assert not any(map(is_amount, [0, -1, LIMIT + 1, True, 1.0, "1", None, b"1", (1,)]))
