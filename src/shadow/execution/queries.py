"""What may be searched for: the bounds of a query, whoever answers it. Pure."""

from collections.abc import Sequence

from shadow.core.errors import Rejected
from shadow.core.search import GrepQuery

MAX_PATTERN_BYTES = 64 * 1024
MAX_MATCHES = 100_000
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_LINE_BYTES = 64 * 1024
MAX_CONTEXT = 1000
MAX_TIMEOUT_S = 600.0
MAX_FILE_MATCHES = 10_000


def check_query(query: GrepQuery) -> None:
    """Raises: Rejected."""
    check_pattern(query.pattern)
    check_globs(query.globs)
    bounds = (
        ("context", query.context, 0, MAX_CONTEXT),
        ("max_matches", query.max_matches, 1, MAX_MATCHES),
        ("max_bytes", query.max_bytes, 1, MAX_ANSWER_BYTES),
        ("max_line_bytes", query.max_line_bytes, 1, MAX_LINE_BYTES),
    )
    for name, value, lowest, highest in bounds:
        if not lowest <= value <= highest:
            raise Rejected(f"{name} must lie between {lowest} and {highest}, not {value}.")
    if not 0 < query.timeout_s <= MAX_TIMEOUT_S:
        raise Rejected(f"timeout_s must be above 0 and at most {MAX_TIMEOUT_S:.0f}, not {query.timeout_s}.")


def check_file_query(query: str, *, limit: int) -> None:
    """Raises: Rejected."""
    if not 1 <= limit <= MAX_FILE_MATCHES:
        raise Rejected(f"limit must lie between 1 and {MAX_FILE_MATCHES}, not {limit}.")
    if len(query) > 1000:
        raise Rejected("The query is longer than 1000 characters.")


def check_globs(globs: Sequence[str]) -> None:
    """Raises: Rejected: for what no search could be told."""
    for glob in globs:
        if not glob.removeprefix("!"):
            raise Rejected("A glob is empty.")
        if "\0" in glob or "\n" in glob:
            raise Rejected("A glob cannot hold NUL or newline characters.")
    if sum(len(encode_text(glob)) for glob in globs) > MAX_PATTERN_BYTES:
        raise Rejected(f"The globs are longer than {MAX_PATTERN_BYTES} bytes together.")


def check_pattern(pattern: str) -> None:
    """Raises: Rejected: for what no search could be told."""
    if "\0" in pattern or "\n" in pattern:
        raise Rejected(
            "A pattern cannot hold NUL or newline characters: the search goes line by line.",
            mend="Search for one line of it, with lines of context.",
        )
    if len(encode_text(pattern)) > MAX_PATTERN_BYTES:
        raise Rejected(f"The pattern is longer than {MAX_PATTERN_BYTES} bytes.")


def encode_text(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise Rejected("The text holds characters that cannot be written as UTF-8.") from error
