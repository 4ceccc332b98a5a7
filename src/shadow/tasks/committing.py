"""The message of what an agent commits: the model's words within sane bounds. Pure."""

import re
import textwrap

SUBJECT_CHARS = 72
BODY_CHARS = 4000
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def commit_message(summary: str, *, fallback: str) -> str:
    """A subject of at most 72 characters and a wrapped body, without what could deceive a reader of the log."""
    text = _UNSAFE.sub("", summary.replace("\r\n", "\n")).strip() or fallback.strip() or "Change files"
    first, _, rest = text.partition("\n")
    subject, more = _subject(" ".join(first.split()))
    body = f"{more}\n\n{rest.strip()}".strip() if more else rest.strip()
    if not body:
        return subject
    paragraphs = [_wrapped(paragraph) for paragraph in body[:BODY_CHARS].split("\n\n")]
    return f"{subject}\n\n" + "\n\n".join(paragraphs)


def _subject(line: str) -> tuple[str, str]:
    """The subject, and the whole line where it did not fit."""
    sentence = re.match(r"(.+?[.!?])(?:\s|$)", line)
    if sentence and len(sentence[1]) <= SUBJECT_CHARS:
        return sentence[1].rstrip("."), line[sentence.end() :].strip()
    if len(line) <= SUBJECT_CHARS:
        return line.rstrip("."), ""
    cut = line[: SUBJECT_CHARS - 1].rsplit(" ", 1)[0]
    return f"{cut}…", line


def _wrapped(paragraph: str) -> str:
    lines = paragraph.split("\n")
    if any(line.startswith((" ", "\t", "-", "*", "```")) for line in lines):
        return paragraph  # lists and code stay as they are
    return "\n".join(textwrap.wrap(" ".join(lines), width=SUBJECT_CHARS, break_long_words=False))
