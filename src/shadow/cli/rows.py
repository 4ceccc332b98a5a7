"""Rows of ``shadow doctor``: what was found, how good that is, and the mend."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    """It works, but not as well as it could."""
    LACK = "lack"
    """It is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    name: str
    verdict: Verdict
    found: str
    mend: str | None = None
    essential: bool = False
    """Whether nothing works while this lacks."""


def ok(name: str, found: str) -> Row:
    return Row(name=name, verdict=Verdict.OK, found=found)


def warn(name: str, found: str, mend: str | None = None) -> Row:
    return Row(name=name, verdict=Verdict.WARN, found=found, mend=mend)


def lack(name: str, found: str, mend: str | None = None, *, essential: bool = False) -> Row:
    return Row(name=name, verdict=Verdict.LACK, found=found, mend=mend, essential=essential)
