"""Bytes and names as a model is shown them: always valid text, without anything that steers a terminal. Pure.

Each control character becomes the one picture of it (ESC is ``␛``, NUL is ``␀``), so that text never grows.
"""

import json
import re

_SEQUENCES = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1b[ -/]*[0-~]")
"""Colours, cursor movements, titles."""
_PICTURES = {
    **{point: 0x2400 + point for point in range(0x20) if chr(point) not in "\n\t"},
    0x7F: 0x2421,
    **dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000)), 0xFFFD),
}


def shown_text(data: bytes) -> str:
    """Of a file: what is not UTF-8 is ``U+FFFD``."""
    return data.decode("utf-8", "replace").translate(_PICTURES)


def shown_output(data: bytes) -> str:
    """Of a command: colours and the like are left out, and each carriage return begins a new line."""
    text = _SEQUENCES.sub("", data.decode("utf-8", "replace"))
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_PICTURES)


def shown_path(path: str) -> str:
    """``path`` as it is where that is plain; else quoted as in JSON, as the model has to write it in its arguments."""
    return path if path.isprintable() and path == path.strip() and '"' not in path and path else json.dumps(path)


def whole_start(data: bytes) -> int:
    """How many bytes at the beginning belong to a character that began before."""
    count = 0
    while count < min(3, len(data)) and data[count] & 0xC0 == 0x80:
        count += 1
    return count


def whole_end(data: bytes) -> int:
    """Where the last character ends that is whole: less than the length where one was cut."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC2 else 1
        return len(data) - back if byte <= 0xF4 and needed > back else len(data)
    return len(data)
