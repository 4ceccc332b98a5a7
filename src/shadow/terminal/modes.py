"""The modes of a terminal that decide what its emulator sends back, followed through what a program writes. No I/O."""

import re

REPORTED = frozenset({9, 12, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 1016, 2004})
"""Private modes of mouse, focus, blinking and pasting: emulators have them, a picture of the screen does not."""
_LONGEST = 64
_SEQUENCE = re.compile(r"\x1b(?:\[\?([0-9;]{1,60})([hl])|([=>c])|\[!p)")
_UNFINISHED = re.compile(r"\x1b(?:\[(?:\?[0-9;]{0,60}|!)?)?\Z")


class Modes:
    """Feed it text in any pieces; ``sequences`` sets a fresh emulator to the same modes."""

    def __init__(self) -> None:
        self._set: set[int] = set()
        self._keypad = False
        self._held = ""

    def feed(self, text: str) -> None:
        text = self._held + text
        for match in _SEQUENCE.finditer(text):
            numbers, verb, single = match.groups()
            if numbers is not None:
                modes = {int(number) for number in numbers.split(";") if number and len(number) < 6} & REPORTED
                self._set = self._set | modes if verb == "h" else self._set - modes
            elif single in ("=", ">"):
                self._keypad = single == "="
            else:
                self._keypad = False
                if single == "c":
                    self._set = set()
        unfinished = _UNFINISHED.search(text, max(0, len(text) - _LONGEST))
        self._held = unfinished.group() if unfinished is not None else ""

    def sequences(self) -> str:
        keypad = "\x1b=" if self._keypad else ""
        return keypad + "".join(f"\x1b[?{mode}h" for mode in sorted(self._set))
