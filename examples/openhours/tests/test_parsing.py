import unittest

from openhours import parse


class ParsingTest(unittest.TestCase):
    def test_a_span_of_days(self):
        self.assertEqual(parse("Mon-Fri 09:00-17:30").hours(), 5 * 8.5)

    def test_a_span_of_days_over_the_weekend(self):
        self.assertEqual(parse("Sat-Mon 10:00-12:00").hours(), 6)

    def test_a_lunch_break(self):
        self.assertEqual(parse("Tue 08:00-12:00, 13:00-18:00").hours(), 9)

    def test_several_rules(self):
        self.assertEqual(parse("Mon 09:00-10:00; Sat 10:00-14:00").hours(), 5)

    def test_nonsense_is_refused(self):
        for text in ("Mon", "Foo 09:00-10:00", "Mon 25:00-26:00", "Mon 09:75-10:00"):
            with self.subTest(text), self.assertRaises(ValueError):
                parse(text)
