"""Paths as text and as the bytes that a file system has: how the one becomes the other. Pure."""

from shadow.core.errors import PathRefused

MAX_PATH_BYTES = 4095  # the kernel's PATH_MAX, less the final NUL


def encode_path(path: str) -> bytes:
    """Raises: PathRefused: for what no file system could name."""
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise PathRefused("The path holds characters that no file name can hold.") from error
    if not raw:
        raise PathRefused("The path is empty.", mend="The root of the workspace is '.'.")
    if b"\0" in raw:
        raise PathRefused("A path cannot hold NUL characters.")
    if len(raw) > MAX_PATH_BYTES:
        raise PathRefused(f"The path is longer than {MAX_PATH_BYTES} bytes.")
    return raw


def decode_path(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def show_path(path: str) -> str:
    """``path`` for a message."""
    return repr(path.encode("utf-8", "backslashreplace").decode())
