"""Identifiers: each kind is a type of its own; all are safe in paths, URLs and shells."""

import re
from dataclasses import dataclass
from typing import NewType

WorkspaceId = NewType("WorkspaceId", str)
CommandId = NewType("CommandId", str)
TerminalId = NewType("TerminalId", str)
OperationId = NewType("OperationId", str)

ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing to confuse when read aloud


def make_id(prefix: str, *, entropy: bytes) -> str:
    """``prefix_`` and one character for each byte of ``entropy`` (16 bytes give 80 bits)."""
    return f"{prefix}_{''.join(_ALPHABET[byte & 31] for byte in entropy)}"


def is_id(text: str) -> bool:
    return ID_PATTERN.fullmatch(text) is not None


def is_terminal_id(text: str) -> bool:
    """Ids of terminals begin with ``term_``, so that none is taken for a command's."""
    return is_id(text) and text.startswith("term_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One mutating call: a repeat with the same ``id`` is answered with the first result; an older ``epoch`` is refused."""

    id: OperationId
    epoch: int
