"""Taking secrets out of what is kept or shown: values that are known, and the known forms of keys. No I/O, no clock.

It errs on the side of removing. What it cannot know (a password that looks like a word, a key in pieces) it cannot remove.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

REMOVED = "[secret removed]"
MIN_SECRET_CHARS = 8
"""Shorter values are left alone: they would be found in the middle of ordinary words."""

_SENSITIVE_NAME = re.compile(
    r"(?:^|_)(?:API_?KEY|ACCESS_?KEY|KEY|TOKENS?|SECRETS?|PASS|PASSW(?:OR)?D|PASSPHRASE|PWD|CREDENTIALS?|PAT|DSN|COOKIE)(?:_|$)",
    re.IGNORECASE,
)
_NOT_SENSITIVE = frozenset({"PWD", "OLDPWD"})
_FORMS = tuple(
    re.compile(form, re.DOTALL)
    for form in (
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
        r"\beyJ[\w-]{8,2000}\.eyJ[\w-]{8,}(?:\.[\w-]*)?",  # JSON web tokens
        r"\bsk-[\w-]{16,}",  # Anthropic, OpenAI, OpenRouter
        r"\b(?:sk|rk|pk)_(?:live|test)_\w{16,}",  # Stripe
        r"\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}",
        r"\bglpat-[\w-]{16,}",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",  # AWS
        r"\bAIza[\w-]{30,}",  # Google
        r"\bxox[a-z]-[\w-]{10,}",  # Slack
        r"\bhf_\w{20,}|\bnpm_\w{30,}|\bpypi-[\w-]{30,}",
    )
)
_IN_HEADER = re.compile(
    r"""((?:authorization|proxy-authorization|x-api-key)["']?\s*[:=]\s*["']?(?:(?:bearer|basic|token)\s+)?)[^\s"',\\]{4,}""",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://)[^\s/@:\"']*:[^\s/@\"']+@", re.IGNORECASE)


def secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The values of those variables whose names say that they are secret."""
    return tuple(
        value
        for name, value in environment.items()
        if name not in _NOT_SENSITIVE and _SENSITIVE_NAME.search(name) and len(value) >= MIN_SECRET_CHARS
    )


class Redactor:
    """Removes ``secrets`` (also as they stand in JSON, in URLs and in base64) and whatever looks like a key."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if len(secret) >= MIN_SECRET_CHARS for form in _forms_of(secret)}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def text(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(REMOVED, text)
        for form in _FORMS:
            text = form.sub(REMOVED, text)
        text = _IN_HEADER.sub(lambda found: found[1] + REMOVED, text)
        return _IN_URL.sub(lambda found: f"{found[1]}{REMOVED}@", text)

    def value(self, value: Any) -> Any:
        """A value of JSON with the secrets removed from each text in it, names included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            items = cast("Mapping[str, Any]", value).items()
            return {self.text(name): self.value(item) for name, item in items}
        if isinstance(value, Sequence):
            return [self.value(item) for item in cast("Sequence[Any]", value)]
        return value


def _forms_of(secret: str) -> set[str]:
    data = secret.encode("utf-8", "surrogatepass")
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(data, safe=""),
        base64.b64encode(data).decode(),
    }
