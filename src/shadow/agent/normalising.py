"""What differs between two runs of the same command though both did the same: made alike before they are compared. Pure.

``docs/recordings.md`` lists these rules; a test holds the two together.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*"
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})\b)?"
_UNIT = "(?:ns|µs|us|ms|s|secs?|seconds?|mins?|minutes?)"
IDS = re.compile(r"\b(?:cmd|ws|task|op)_[0-9a-z]{8,}\b")


@dataclass(frozen=True, slots=True)
class Normaliser:
    name: str
    pattern: re.Pattern[str]
    replacement: str


NORMALISERS: Sequence[Normaliser] = tuple(
    Normaliser(name, re.compile(pattern), replacement)
    for name, pattern, replacement in (
        (
            "dates and times",
            (
                rf"\b\d{{4}}-\d{{2}}-\d{{2}}(?:[T ]{_CLOCK}{_ZONE})?"
                rf"|\b(?:{_DAY},? +)?(?:{_MONTH} +\d{{1,2}}|\d{{1,2}} +{_MONTH})(?:,? +(?:\d{{4}}\b|{_CLOCK}{_ZONE})){{1,2}}"
                rf"|\b\d{{1,2}}:\d{{2}}:\d{{2}}(?:[.,]\d+)?{_ZONE}"
            ),
            "<time>",
        ),
        (
            "durations",
            rf"\b(?:\d+m ?)?\d+\.\d+ ?{_UNIT}\b|\b\d+ ?(?:ns|µs|us|ms)\b",
            "<duration>",
        ),
        ("durations behind a word", rf"(?i)\b(in|took|after|elapsed|time)(:? +)\d+ ?{_UNIT}\b", r"\1\2<duration>"),
        (
            "durations behind their unit",
            r"\b(duration_ms|took_ms|elapsed_ms)([ =:\"']+)\d+(?:\.\d+)?",
            r"\1\2<duration>",
        ),
        ("temporary paths", r"(?<![\w.-])(/(?:var/)?tmp/)[\w.+@-]+", r"\1<name>"),
        ("process ids", r"(?i)\b(pid)([ =:]+)\d+\b", r"\1\2<pid>"),
        ("addresses in memory", r"\b0x[0-9a-fA-F]{6,16}\b", "<address>"),
        ("ports of this host", r"(\b127\.0\.0\.1|\blocalhost|\[::1\]):\d{4,5}\b", r"\1:<port>"),
    )
)


def normalised(text: str) -> str:
    """``text`` with each rule applied; ids of workspaces, tasks and commands become numbers in their order."""
    order = list(dict.fromkeys(IDS.findall(text)))
    text = IDS.sub(lambda found: f"<id {order.index(found[0]) + 1}>", text)
    for rule in NORMALISERS:
        text = rule.pattern.sub(rule.replacement, text)
    return text
