import unittest

from openhours.interval import Interval, merge


class IntervalTest(unittest.TestCase):
    def test_the_end_is_not_part_of_it(self):
        self.assertIn(10, Interval(10, 20))
        self.assertNotIn(20, Interval(10, 20))

    def test_it_cannot_run_backwards(self):
        with self.assertRaises(ValueError):
            Interval(20, 10)

    def test_merging_joins_what_touches(self):
        self.assertEqual(merge([Interval(20, 30), Interval(10, 20)]), [Interval(10, 30)])

    def test_merging_keeps_what_is_apart(self):
        self.assertEqual(merge([Interval(21, 30), Interval(10, 20)]), [Interval(10, 20), Interval(21, 30)])
