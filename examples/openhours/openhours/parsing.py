"""The text form: rules parted by semicolons, each with days and times."""

import re

from openhours.interval import MINUTES_PER_DAY, Interval
from openhours.week import DAYS, Week

_TIMES = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")


def parse(text):
    """The week that ``text`` describes. Raises ValueError with the part that makes no sense."""
    intervals = []
    for rule in filter(None, (part.strip() for part in text.split(";"))):
        days, _, times = rule.partition(" ")
        for day in _parse_days(days):
            intervals.extend(_parse_times(day, span.strip()) for span in times.split(","))
    return Week(intervals)


def _parse_days(text):
    first, dash, last = text.partition("-")
    if first not in DAYS or (dash and last not in DAYS):
        raise ValueError(f"no such days: {text!r}")
    start = DAYS.index(first)
    count = (DAYS.index(last) - start) % 7 + 1 if dash else 1
    return [(start + step) % 7 for step in range(count)]


def _parse_times(day, text):
    match = _TIMES.fullmatch(text)
    if match is None:
        raise ValueError(f"no such times: {text!r}")
    from_hour, from_minute, to_hour, to_minute = map(int, match.groups())
    opens, closes = from_hour * 60 + from_minute, to_hour * 60 + to_minute
    if max(from_minute, to_minute) > 59 or max(opens, closes) > MINUTES_PER_DAY:
        raise ValueError(f"no such times: {text!r}")
    if closes <= opens:  # past midnight
        closes += MINUTES_PER_DAY
    return Interval(day * MINUTES_PER_DAY + opens, day * MINUTES_PER_DAY + closes)
