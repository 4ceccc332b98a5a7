"""Text of a process made harmless for a terminal that is not its own. No I/O.

What is left out are whole escape sequences: what sets titles or the clipboard, makes links, moves the cursor, changes modes,
asks the terminal or answers it. Colours stay if they are wanted. Every other character that could steer a terminal or deceive
a reader is shown as an escape such as ``\\x07`` or ``\\u202e``; text that a colour hides stays hidden.
"""

import codecs
import re
from enum import Enum, auto

# C0, DEL and C1; what reorders text or is not seen: soft hyphens, joiners, marks of direction, fillers, tags, selectors of
# variants beyond those that emoji use; the surrogates that stand for undecodable bytes.
_UNSAFE = (
    "\x00-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ud800-\udfff"
)
_UNSAFE_CHARACTER = re.compile(f"[{_UNSAFE}]")
_PLAIN = re.compile(f"(?:[^{_UNSAFE}]|[\t\n\r])+")
_PARAMETERS = re.compile("[ -?]*")
_COLOUR = re.compile("[0-9;:]*")
_ERASE_LINE = re.compile("[0-2]?")
_STRING_END = re.compile("[\x07\x18\x1a\x1b\x9c\n]")
_LONGEST_PARAMETERS = 100

_SHORT_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def printable(text: str) -> str:
    """``text`` on one line, with every character that could steer a terminal or deceive a reader written as an escape."""
    return _UNSAFE_CHARACTER.sub(lambda match: _escape(match[0]), text)


def _escape(character: str) -> str:
    point = ord(character)
    if 0xDC80 <= point <= 0xDCFF:
        return f"\\x{point - 0xDC00:02x}"  # the byte that surrogateescape stands for
    if point < 0x100:
        return _SHORT_ESCAPES.get(character) or f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


class _State(Enum):
    TEXT = auto()
    ESCAPE = auto()
    """Behind ESC."""
    CONTROL = auto()
    """Behind ``ESC [``."""
    STRING = auto()
    """Behind ``ESC ]`` and its like."""


class Neutraliser:
    """Feed it bytes in any pieces: what comes out is the same for all. It holds no more than one short sequence.

    Lines stay lines: tabs, line feeds and carriage returns pass. A string that never ends ends with its line.
    """

    def __init__(self, *, colours: bool = True) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._colours = colours
        self._coloured = False
        self._state = _State.TEXT
        self._parameters = ""

    def feed(self, data: bytes) -> str:
        return self._take(self._decoder.decode(data))

    def finish(self) -> str:
        """What is left, and the way back to no colour."""
        rest = self._take(self._decoder.decode(b"", final=True))
        self._state = _State.TEXT
        if self._coloured:
            self._coloured = False
            rest += "\x1b[m"
        return rest

    def _take(self, text: str) -> str:
        shown: list[str] = []
        at = 0
        while at < len(text):
            match self._state:
                case _State.TEXT:
                    at = self._plain(text, at, shown)
                case _State.ESCAPE:
                    at = self._behind_escape(text, at)
                case _State.CONTROL:
                    at = self._control(text, at, shown)
                case _State.STRING:
                    at = self._string(text, at)
        return "".join(shown)

    def _plain(self, text: str, at: int, shown: list[str]) -> int:
        if plain := _PLAIN.match(text, at):
            shown.append(plain[0])
            return plain.end()
        if text[at] == "\x1b":
            self._state = _State.ESCAPE
        else:
            shown.append(_escape(text[at]))
        return at + 1

    def _behind_escape(self, text: str, at: int) -> int:
        character = text[at]
        if character == "[":
            self._state, self._parameters = _State.CONTROL, ""
        elif character in "]PX^_":
            self._state = _State.STRING
        elif not " " <= character <= "/":
            self._state = _State.TEXT
            if not "0" <= character <= "~":
                return at  # it broke off: not a part of it
        return at + 1

    def _control(self, text: str, at: int, shown: list[str]) -> int:
        parameters = _PARAMETERS.match(text, at)
        assert parameters is not None
        self._parameters = (self._parameters + parameters[0])[: _LONGEST_PARAMETERS + 1]
        at = parameters.end()
        if at == len(text):
            return at
        self._state = _State.TEXT
        if not "@" <= text[at] <= "~":
            return at  # it broke off
        if self._colours and self._is_harmless(text[at]):
            self._coloured |= text[at] == "m"
            shown.append(f"\x1b[{self._parameters}{text[at]}")
        return at + 1

    def _is_harmless(self, final: str) -> bool:
        """A colour, or clearing the rest of a line, as what redraws a line with a carriage return does."""
        if len(self._parameters) > _LONGEST_PARAMETERS:
            return False
        kind = {"m": _COLOUR, "K": _ERASE_LINE}.get(final)
        return kind is not None and kind.fullmatch(self._parameters) is not None

    def _string(self, text: str, at: int) -> int:
        end = _STRING_END.search(text, at)
        if end is None:
            return len(text)
        self._state = _State.ESCAPE if end[0] == "\x1b" else _State.TEXT
        return end.start() if end[0] == "\n" else end.end()
