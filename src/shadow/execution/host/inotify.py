"""inotify(7) by the C library: one instance, its watches, its events. Raises plain ``OSError``; nothing blocks."""

import ctypes
import functools
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

MODIFY = 0x2
ATTRIB = 0x4
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
OVERFLOW = 0x4000
IGNORED = 0x8000
IS_DIRECTORY = 0x4000_0000
_ONLY_DIRECTORIES = 0x100_0000
_BUFFER_BYTES = 64 * 1024
_EVENT = struct.Struct("iIII")


@dataclass(frozen=True, slots=True)
class Event:
    watch: int
    mask: int
    cookie: int
    name: bytes

    @property
    def is_directory(self) -> bool:
        return bool(self.mask & IS_DIRECTORY)


class Inotify:
    def __init__(self) -> None:
        self.fd = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)

    def watch(self, directory: int, mask: int) -> int:
        """Watch the open directory, no matter what its name stands for by now; the same number where it is watched."""
        path = b"/proc/self/fd/%d" % directory
        return _call("inotify_add_watch", self.fd, path, mask | _ONLY_DIRECTORIES)

    def forget(self, watch: int) -> None:
        with suppress(OSError):  # its directory is gone, and the watch with it
            _call("inotify_rm_watch", self.fd, watch)

    def read(self) -> Iterator[Event]:
        """Some of the events that wait; none where none do."""
        try:
            data = os.read(self.fd, _BUFFER_BYTES)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, cookie, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            yield Event(watch, mask, cookie, data[at - length : at].rstrip(b"\0"))

    def close(self) -> None:
        os.close(self.fd)


def _call(name: str, *arguments: int | bytes) -> int:
    result = _function(name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@functools.cache
def _function(name: str) -> Callable[..., int]:
    return getattr(ctypes.CDLL(None, use_errno=True), name)
