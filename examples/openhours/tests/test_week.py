import unittest
from datetime import datetime

from openhours import parse

SHOP = parse("Mon-Fri 09:00-17:30; Sat 10:00-14:00")
BAR = parse("Thu-Sun 20:00-02:00")


class WeekTest(unittest.TestCase):
    def test_open_in_business_hours(self):
        self.assertTrue(SHOP.is_open(datetime(2026, 3, 4, 12, 0)))  # a Wednesday

    def test_closed_from_the_closing_minute_on(self):
        self.assertFalse(SHOP.is_open(datetime(2026, 3, 4, 17, 30)))

    def test_the_next_opening_after_the_weekend(self):
        self.assertEqual(SHOP.next_opening(datetime(2026, 3, 7, 15, 0)), datetime(2026, 3, 9, 9, 0))

    def test_open_past_midnight(self):
        self.assertTrue(BAR.is_open(datetime(2026, 3, 7, 1, 30)))  # Friday's night, on Saturday

    def test_open_past_midnight_on_sunday(self):
        self.assertTrue(BAR.is_open(datetime(2026, 3, 9, 1, 30)))  # Sunday's night, on Monday

    def test_what_never_opens_has_no_next_opening(self):
        self.assertIsNone(parse("").next_opening(datetime(2026, 3, 4, 12, 0)))
