"""What providers, their SDKs and the network report, as the errors of ``core.models``. No I/O.

Messages say what happened in a bounded line, without keys.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
from pydantic_ai.exceptions import (
    ContentFilterError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelRequestTimeout,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
    UserError,
)

from shadow.agent.providers.making import Endpoint, Provider
from shadow.agent.providers.sendable import clean
from shadow.agent.providers.trying import refused_by_guard
from shadow.core.errors import ShadowError
from shadow.core.models import (
    ContentRefused,
    ContextTooLong,
    ModelAnswerUnreadable,
    ModelKeyRefused,
    ModelNotFound,
    ModelOverloaded,
    ModelQuotaExceeded,
    ModelRateLimited,
    ModelRequestRefused,
    ModelUnreachable,
)

MAX_SAID_CHARS = 300
MIN_KEY_CHARS = 4
"""What is shorter is no key, and taking it out would make nonsense of the text."""
MAX_RETRY_AFTER_S = 30 * 24 * 3600.0

_KEY_SHAPED = re.compile(r"\b(?:sk|key|gsk|xai|or)-[\w*.-]{6,}|(?i:bearer)\s+\S+")
_POLICY_CODES = frozenset({"content_policy_violation", "content_filter", "cyber_policy_violation", "invalid_prompt"})
_POLICY_PHRASES = ("content filter", "content management policy", "content policy", "usage policy", "safety system")
_TOO_LONG_PHRASES = (
    "prompt is too long", "context length", "context window", "context limit", "context size", "too many tokens",
)  # fmt: skip
_GUARD_SAYS = ("Egress refused", "egress policy refuses this connection")
"""In front of tunnels, and of plain HTTP."""
_HTML = re.compile(r"<[^>]{1,200}>")


def fault(error: Exception, *, provider: Provider, model: str, endpoint: Endpoint) -> ShadowError:
    """The error of ours that ``error`` of a request stands for. ``endpoint`` has its base URL."""
    base_url = endpoint.base_url or ""
    to = provider.title[:1].upper() + provider.title[1:]
    status: object = getattr(error.__cause__, "status_code", None)
    if isinstance(status, int) and 300 <= status < 400:
        mend = "Set the base URL to where it leads; keys are not sent along with redirections."
        return ModelRequestRefused(f"{base_url} redirects ({status}).", mend=mend)
    said = _said(error, endpoint.key)
    if endpoint.proxy is not None and any(words in said for words in _GUARD_SAYS):
        return refused_by_guard(base_url)
    match error:
        case ModelContextWindowExceededError():
            return ContextTooLong(f"The conversation does not fit into {model}: {said}")
        case ModelHTTPError(status_code=413):
            return ContextTooLong(f"The request is too large for {to}: {said}")
        case ModelAuthenticationError():
            which = "the key that is stored" if endpoint.is_stored else f"{provider.settings.upper()}_API_KEY"
            mend = f"Check {which}, and that it may use {model}."
            return ModelKeyRefused(f"{to} refuses the key: {said}", mend=mend)
        case ModelNotFoundError():
            mend = f"Check the model's name and the base URL ({base_url})."
            return ModelNotFound(f"{to} does not know {model!r}: {said}", mend=mend)
        case ModelQuotaExceededError():
            return ModelQuotaExceeded(
                f"{to} says that the account is used up: {said}", mend="Top it up, or raise its limit."
            )
        case ModelRateLimitError():
            return ModelRateLimited(f"{to} limits the rate of requests: {said}", details=_wait(error))
        case ContentFilterError():
            return ContentRefused(f"{to} refuses the content: {said}")
        case ModelRequestRejectedError():
            return _rejected(error, said, to)
        case ModelUnavailableError() | ModelServerError():
            return ModelOverloaded(f"{to} cannot answer now: {said}", details=_wait(error))
        case ModelTimeoutError() | ModelRequestTimeout() | httpx2.TimeoutException():
            return ModelUnreachable(f"{to} did not answer in time ({base_url}): {said}")
        case ModelConnectionError(phase="connect") | httpx2.ConnectError():
            return ModelUnreachable(f"{to} cannot be reached at {base_url}: {said}", mend=_reach(provider, endpoint))
        case ModelConnectionError() | httpx2.HTTPError() | httpx2.StreamError():
            return ModelUnreachable(f"{to} broke off its answer: {said}")
        case ModelHTTPError():
            return _of_status(error, said, to)
        case ModelAPIError(in_stream=True):
            return ModelOverloaded(f"{to} failed in the middle of its answer: {said}")
        case UserError():
            return ModelRequestRefused(f"The request cannot be made of {model}: {said}")
        case _:
            return ModelAnswerUnreadable(f"{to} gave an answer that cannot be understood: {said}")


def cut(provider: Provider) -> ModelUnreachable:
    """For a stream that ended without its end."""
    return ModelUnreachable(f"The answer of {provider.title} broke off before its end.")


def _rejected(error: ModelRequestRejectedError, said: str, to: str) -> ShadowError:
    code = error.provider_error_code or ""
    lower = said.lower()
    if code in _POLICY_CODES or any(phrase in lower for phrase in _POLICY_PHRASES):
        return ContentRefused(f"{to} refuses the content: {said}")
    if any(phrase in lower for phrase in _TOO_LONG_PHRASES):
        return ContextTooLong(f"The conversation is too long for the model: {said}")
    return ModelRequestRefused(f"{to} refuses the request: {said}")


def _of_status(error: ModelHTTPError, said: str, to: str) -> ShadowError:
    status = error.status_code
    if status in (408, 409, 425):
        return ModelOverloaded(f"{to} cannot answer now ({status}): {said}", details=_wait(error))
    return ModelRequestRefused(f"{to} refuses the request ({status}): {said}")


def _reach(provider: Provider, endpoint: Endpoint) -> str:
    if endpoint.is_stored:
        return "Check the base URL that is stored with the key."
    if provider.name == "ollama":
        return "Start it with `ollama serve`, or set SHADOW_OLLAMA_BASE_URL."
    return "Check the network, HTTPS_PROXY and the base URL."


def _wait(error: ModelAPIError) -> Mapping[str, object]:
    wait_s = error.retry_after
    if wait_s is None and isinstance(error, ModelHTTPError):
        try:
            wait_s = float((error.headers or {}).get("retry-after", ""))  # a fraction, which the SDKs do not read
        except ValueError:
            return {}
    if wait_s is None or not 0 <= wait_s < float("inf"):
        return {}
    return {"retry_after_s": min(wait_s, MAX_RETRY_AFTER_S)}


def _said(error: Exception, key: str) -> str:
    """What the other side said, else what happened here: one bounded line without keys."""
    text = _message_of(error.body) if isinstance(error, ModelAPIError) else None
    if text is None:
        text = " ".join(dict.fromkeys(_told(error)))
    if len(key) >= MIN_KEY_CHARS:
        text = text.replace(key, "[key]")
    text = " ".join(_HTML.sub(" ", _KEY_SHAPED.sub("[key]", clean(text))).split())
    return text if len(text) <= MAX_SAID_CHARS else f"{text[: MAX_SAID_CHARS - 1]}…"


def _told(error: BaseException | None) -> Iterator[str]:
    """Of an error and of what caused it: SDKs say no more than "Connection error." themselves."""
    for _ in range(4):
        if error is None:
            return
        yield str(getattr(error, "message", None) or error) or type(error).__name__
        error = error.__cause__


def _message_of(body: Any) -> str | None:
    """Where providers put their words: ``{"error": {"message": …}}``, ``{"message": …}``, ``{"error": "…"}``, or plain text."""
    if isinstance(body, str):
        return body or None
    if not isinstance(body, dict):
        return None
    inner: Any = body.get("error", body)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(inner, dict):
        inner = inner.get("message")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return inner if isinstance(inner, str) and inner else None
