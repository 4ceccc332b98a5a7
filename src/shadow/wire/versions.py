"""Versions of files as the headers of HTTP have them: strong entity tags (RFC 9110)."""

import re

from shadow.core.errors import Rejected
from shadow.core.files import ANY_VERSION

MAX_TAGS_CHARS = 4096
_STRONG = re.compile(r'"([!#-~]{1,200})"')
_TAG = re.compile(r'\s*(?:W/)?"([!#-~]*)"\s*(?:,|$)')


def etag(version: str) -> bytes:
    """Of a version that is known."""
    return f'"{version}"'.encode()


def version_of(tag: str | None) -> str:
    """What an ``ETag`` names; empty where it names nothing that could be given back. It may come from somebody hostile."""
    found = _STRONG.fullmatch(tag) if tag is not None else None
    return found[1] if found else ""


def if_match(expected: str) -> str:
    """Raises: Rejected: the version was not known."""
    if expected == ANY_VERSION:
        return expected
    if not _STRONG.fullmatch(f'"{expected}"'):
        raise Rejected("The version that the file must have is none.", mend="Read the file again.")
    return f'"{expected}"'


def expected_of(header: str | None) -> str | None:
    """What ``If-Match`` asks for. Raises: Rejected: neither ``*`` nor one strong tag, as ``ETag`` has it."""
    if header is None:
        return None
    if header.strip() == ANY_VERSION:
        return ANY_VERSION
    version = version_of(header.strip())
    if not version:
        raise Rejected(
            "If-Match must be `*` or one strong tag.",
            mend='Give it as `ETag` came: "…". A proxy that compresses makes W/"…" of it: leave the W/ out.',
        )
    return version


def matches(header: str | None, version: str) -> bool:
    """Whether ``If-None-Match`` names the version of what is there; weak tags count, as RFC 9110 has it for this header."""
    if header is None or not version or len(header) > MAX_TAGS_CHARS:
        return False
    if header.strip() == ANY_VERSION:
        return True
    tags: list[str] = []
    at = 0
    while at < len(header):
        found = _TAG.match(header, at)
        if found is None:
            return False
        tags.append(found[1])
        at = found.end()
    return version in tags
