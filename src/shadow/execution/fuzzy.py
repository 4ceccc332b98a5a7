"""Fuzzy search in paths: which hold the characters of a query in order, and how well. Pure.

White space in a query separates words for the eye only: ``foo bar`` is looked for as ``foobar``, and paths that hold it
as it was typed come first. Case does not matter, but the same case is better.
"""

import heapq
import re
from collections.abc import Sequence

SCORED_IN_FULL = 2000

_MATCH = 16
_NEXT_TO_IT = 16
_WORD_START = 12
_BASENAME = 8
_BASENAME_START = 12
_SAME_CASE = 1
_AS_TYPED = 24
_LONGEST_GAP_COUNTED = 8


def rank(query: str, paths: Sequence[str], *, limit: int) -> tuple[list[tuple[int, str]], int]:
    """The ``limit`` best as ``(score, path)``, best first (ties: shorter, then by code point), and how many match."""
    needle = _lower("".join(query.split()))
    if not needle:
        return [(0, path) for path in heapq.nsmallest(limit, paths)], len(paths)
    matches = _subsequence(needle).match
    found = [path for path in paths if matches(_lower(path))]
    candidates = found
    if len(found) > SCORED_IN_FULL:
        # A short query matches nearly everything: only what looks good at a glance is scored in full.
        glance = _Glance(needle)
        candidates = heapq.nsmallest(max(SCORED_IN_FULL, limit), found, key=glance.key)
    scored = [(-score(query, path), len(path), path) for path in candidates]
    return [(-negative, path) for negative, _, path in heapq.nsmallest(limit, scored)], len(found)


def score(query: str, path: str) -> int:
    """Higher is better; ``path`` must match. Only comparable for one query."""
    typed = "".join(query.split())
    needle = _lower(typed)
    lowered = _lower(path)
    base = path.rfind("/") + 1
    start = base if _subsequence(needle).match(lowered, base) else 0
    value = max(
        (_score_at(typed, path, base, positions) for positions in _alignments(needle, lowered, start)), default=0
    )
    if " " in query and _lower(query.strip()) in lowered:
        value += _AS_TYPED
    return value


def _alignments(needle: str, lowered: str, start: int) -> list[list[int]]:
    """A few ways to find the needle: as one run (the first, the last, one at a word's start), and scattered but tight."""
    ways: list[list[int]] = []
    runs = {lowered.find(needle, start), lowered.rfind(needle, start)}
    at_word = re.search(r"(?<![^\W_])" + re.escape(needle), lowered[start:])
    if at_word is not None:
        runs.add(start + at_word.start())
    ways.extend(list(range(run, run + len(needle))) for run in runs if run >= 0)
    if ways:
        return ways
    end = start
    for character in needle:
        end = lowered.index(character, end) + 1
    backwards: list[int] = []
    position = end
    for character in reversed(needle):  # back from the earliest end: the tightest place that ends there
        position = lowered.rindex(character, start, position)
        backwards.append(position)
    ways.append(backwards[::-1])
    latest: list[int] = []
    position = len(lowered)
    for character in reversed(needle):
        position = lowered.rindex(character, start, position)
        latest.append(position)
    ways.append(latest[::-1])
    return ways


def _score_at(typed: str, path: str, base: int, positions: Sequence[int]) -> int:
    value = 0
    before = -1
    for wanted, position in zip(typed, positions, strict=True):
        value += _MATCH + _SAME_CASE * (path[position] == wanted)
        if position >= base:
            value += _BASENAME
        if position == base:
            value += _BASENAME_START
        if position == before + 1 and before >= 0:
            value += _NEXT_TO_IT
        elif _starts_word(path, position):
            value += _WORD_START
        if before >= 0:
            value -= min(position - before - 1, _LONGEST_GAP_COUNTED)
        before = position
    return value


def _starts_word(path: str, position: int) -> bool:
    if position == 0:
        return True
    here, previous = path[position], path[position - 1]
    return not previous.isalnum() or (here.isupper() and not previous.isupper())


class _Glance:
    """A first, cheap order: the needle in one run in the base name, anywhere, scattered; short paths first."""

    def __init__(self, needle: str) -> None:
        self._needle = needle
        self._scattered = _subsequence(needle)

    def key(self, path: str) -> tuple[int, int, str]:
        lowered = _lower(path)
        base = lowered.rfind("/") + 1
        run = lowered.rfind(self._needle)
        if run >= base:
            tier = 0 if lowered.startswith(self._needle, base) else 1
        elif self._scattered.match(lowered, base):
            tier = 2
        else:
            tier = 3 if run >= 0 else 4
        return tier, len(path), path


def _subsequence(needle: str) -> re.Pattern[str]:
    """To be matched from where the characters may begin; possessive, so that a miss costs one pass."""
    return re.compile("".join(f"[^{re.escape(c)}]*+{re.escape(c)}" for c in needle))


def _lower(text: str) -> str:
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)  # keeps positions as they are
