"""What a program changed about the terminal that it is shown on, and the way back, for whoever takes it away. No I/O."""

import re

_ALTERNATE_SCREEN = frozenset({47, 1047, 1049})
_OFF_BY_DEFAULT = _ALTERNATE_SCREEN | {1, 5, 6, 9, 66, *range(1000, 1007), 1015, 1016, 2004, 2026, 2031, 2048}
"""Private modes that are set back one by one; of any other no way back is known that suits every terminal."""
_MODES = re.compile(rb"\x1b\[\?([0-9;]{1,60})([hl])")
_WAYS_BACK = (
    (re.compile(rb"\x1b\[[>=][0-9;]{0,20}u"), b"\x1b[<99u\x1b[=0u"),  # keys in the manner of kitty
    (re.compile(rb"\x1b\[>4[0-9;]{0,20}m"), b"\x1b[>4m"),  # keys in the manner of xterm
    (re.compile(rb"\x1b\[[0-9]{0,3} q"), b"\x1b[0 q"),  # the cursor's form
    (re.compile(rb"\x1b\[[0-9;]{0,20}r"), b"\x1b7\x1b[r\x1b8"),  # a region that scrolls, without moving the cursor
    (re.compile(rb"\x1b="), b"\x1b>"),  # the keypad
    (re.compile(rb"[\x0e\x0f]|\x1b[()]"), b"\x1b(B\x0f"),  # characters for drawing
)
_FIRST = b"\x1b\\"
"""Ends a title or the like that was left unfinished."""
_ALWAYS = b"\x1b[?7h\x1b[?25h\x1b[m"
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-9;?>= ]{0,62})?\Z")


class Leaving:
    """Feed it what goes to the terminal, in any pieces."""

    def __init__(self) -> None:
        self._modes: set[int] = set()
        self._changed: set[int] = set()
        """Which of ``_WAYS_BACK`` are needed."""
        self._held = b""

    def feed(self, data: bytes) -> None:
        data = self._held + data
        for match in _MODES.finditer(data):
            self._set({int(n) for n in match[1].split(b";") if 0 < len(n) < 6}, on=match[2] == b"h")
        for index, (pattern, _) in enumerate(_WAYS_BACK):
            if index not in self._changed and pattern.search(data):
                self._changed.add(index)
        unfinished = _UNFINISHED.search(data, max(0, len(data) - 64))
        self._held = unfinished[0] if unfinished is not None else b""

    def _set(self, modes: set[int], *, on: bool) -> None:
        if on:
            self._modes |= modes & _OFF_BY_DEFAULT
        else:
            self._modes -= modes | (_ALTERNATE_SCREEN if modes & _ALTERNATE_SCREEN else set())

    def way_back(self) -> bytes:
        """To the screen and the modes that every program expects."""
        # The alternate screen goes last, when its keys have been given back: terminals keep those for each screen.
        order = sorted(self._modes, key=lambda mode: mode in _ALTERNATE_SCREEN)
        modes = b"".join(b"\x1b[?%dl" % mode for mode in order)
        changed = [way_back for index, (_, way_back) in enumerate(_WAYS_BACK) if index in self._changed]
        return _FIRST + b"".join(changed) + modes + _ALWAYS
