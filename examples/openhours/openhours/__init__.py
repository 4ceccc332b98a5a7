"""Opening hours of a week: parse them, ask whether something is open, and when it opens next."""

from openhours.parsing import parse
from openhours.week import Week

__all__ = ["Week", "parse"]
