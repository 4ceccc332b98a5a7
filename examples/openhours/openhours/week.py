"""A week of opening hours, and the questions one asks of it."""

from datetime import timedelta

from openhours.interval import MINUTES_PER_DAY, MINUTES_PER_WEEK, merge

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def minute_of_week(moment):
    return moment.weekday() * MINUTES_PER_DAY + moment.hour * 60 + moment.minute


class Week:
    def __init__(self, intervals):
        self.intervals = merge(intervals)

    def is_open(self, moment):
        minute = minute_of_week(moment)
        return any(minute in interval for interval in self.intervals)

    def next_opening(self, moment):
        """When it opens next: ``moment`` itself where it is open; ``None`` where it never opens."""
        if not self.intervals:
            return None
        if self.is_open(moment):
            return moment
        minute = minute_of_week(moment)
        wait = min((interval.start - minute) % MINUTES_PER_WEEK for interval in self.intervals)
        return moment.replace(second=0, microsecond=0) + timedelta(minutes=wait)

    def hours(self):
        """How many hours a week it is open."""
        return sum(interval.length for interval in self.intervals) / 60
