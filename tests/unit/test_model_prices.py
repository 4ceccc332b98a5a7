"""What a request costs, and what it may cost at most."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from shadow.core.conversation import Usage
from shadow.core.models import Price

dollars = st.decimals(0, 1000, places=4)
prices = st.builds(
    Price, input=dollars, output=dollars, cache_read=st.none() | dollars, cache_write=st.none() | dollars
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    read, write, plain = draw(st.tuples(*[st.integers(0, 10**7)] * 3))
    return Usage(
        input_tokens=read + write + plain,
        output_tokens=draw(st.integers(0, 10**6)),
        cache_read_tokens=read,
        cache_write_tokens=write,
    )


def test_each_kind_of_token_has_its_price() -> None:
    price = Price(input=Decimal(3), output=Decimal(15), cache_read=Decimal("0.3"), cache_write=Decimal("3.75"))
    usage = Usage(input_tokens=3_000_000, output_tokens=1_000_000, cache_read_tokens=10**6, cache_write_tokens=10**6)
    assert price.of(usage) == 3 + 15 + Decimal("0.3") + Decimal("3.75")


def test_without_a_price_of_its_own_what_is_cached_costs_as_input() -> None:
    price = Price(input=Decimal(3), output=Decimal(15))
    assert price.of(Usage(input_tokens=10**6, cache_read_tokens=500_000, cache_write_tokens=100_000)) == 3


@given(prices, usages())
def test_no_request_costs_more_than_its_bound(price: Price, usage: Usage) -> None:
    bound = price.upper_bound(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    assert 0 <= price.of(usage) <= bound


@given(prices, usages(), usages())
def test_two_requests_cost_what_they_cost_together(price: Price, one: Usage, other: Usage) -> None:
    assert price.of(one) + price.of(other) == price.of(one + other)
