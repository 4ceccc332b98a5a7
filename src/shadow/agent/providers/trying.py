"""Tries a key: the cheapest request that a provider answers to a good key alone. What it says is not passed on."""

import asyncio
from collections.abc import Mapping

from shadow.agent.providers.making import Endpoint, Provider
from shadow.core.errors import ShadowError
from shadow.core.models import (
    ModelAnswerUnreadable,
    ModelKeyRefused,
    ModelOverloaded,
    ModelQuotaExceeded,
    ModelRateLimited,
    ModelRequestRefused,
    ModelUnreachable,
)

TIMEOUT_S = 20.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
NOT_TRIED = "To store it all the same, give --no-check (`check: false`)."
_ASKED: Mapping[str, str] = {
    "anthropic": "/v1/models?limit=1",
    "openai": "/models",
    "openrouter": "/key",  # its models are listed to everybody
    "ollama": "/models",
    "compatible": "/models",
}


async def try_key(provider: Provider, endpoint: Endpoint) -> None:
    """Raises: ModelKeyRefused, ModelUnreachable, ModelQuotaExceeded, ModelRateLimited, ModelOverloaded, ModelRequestRefused,
    ModelAnswerUnreadable: it answers, and not as such a provider does.
    """
    import httpx2  # as the SDKs do, with what it takes of the environment; not above: it is loaded where a key is tried

    base = (endpoint.base_url or provider.base_url or "").rstrip("/")
    url = f"{base}{_ASKED[provider.settings]}"
    try:
        async with asyncio.timeout(TIMEOUT_S):
            async with (
                httpx2.AsyncClient(proxy=endpoint.proxy, follow_redirects=False, timeout=TIMEOUT_S) as client,
                client.stream("GET", url, headers=_headers(provider, endpoint)) as response,
            ):
                status = response.status_code
                is_json = "json" in response.headers.get("content-type", "")
                if endpoint.proxy is not None and response.reason_phrase.startswith("Egress refused"):
                    raise refused_by_guard(base)
                size = 0
                async for piece in response.aiter_raw():
                    size += len(piece)
                    if size > MAX_ANSWER_BYTES:
                        is_json = False
                        break
    except TimeoutError:
        raise ModelUnreachable(f"{base} does not answer in time.", mend=NOT_TRIED) from None
    except httpx2.ProxyError as error:
        raise refused_by_guard(base) if "Egress refused" in str(error) else _unreachable(base, "its proxy") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ValueError, OSError) as error:
        # Not chained: what a library shows of a request may hold the key.
        raise _unreachable(base, type(error).__name__) from None
    if status != 200 or not is_json:
        raise _of_status(status, provider, base)


def refused_by_guard(base_url: str) -> ShadowError:
    """For an address that was judged once more when it was connected to."""
    return ModelRequestRefused(
        f"{base_url} leads to an address that is not public.",
        mend="Whoever runs the server can allow it: SHADOW_MODEL_EGRESS.",
    )


def _headers(provider: Provider, endpoint: Endpoint) -> Mapping[str, str]:
    told = {"Accept": "application/json", "User-Agent": "shadow"}
    if provider.name == "anthropic":
        return {**told, "x-api-key": endpoint.key, "anthropic-version": "2023-06-01"}
    return {**told, "Authorization": f"Bearer {endpoint.key}"} if endpoint.key else told


def _unreachable(base: str, why: str) -> ModelUnreachable:
    return ModelUnreachable(f"{base} cannot be reached ({why}).", mend=f"Check the base URL. {NOT_TRIED}")


def _of_status(status: int, provider: Provider, base: str) -> ShadowError:
    to = provider.title[:1].upper() + provider.title[1:]
    match status:
        case 200:
            return ModelAnswerUnreadable(f"{base} answers with something that is no list.", mend=NOT_TRIED)
        case 401 | 403:
            return ModelKeyRefused(f"{to} refuses the key ({status}).", mend="Check that it was copied whole.")
        case 402:
            return ModelQuotaExceeded(f"{to} says that the account is used up.", mend=f"Top it up. {NOT_TRIED}")
        case 429:
            return ModelRateLimited(f"{to} limits the rate of requests.", mend=f"Try again later. {NOT_TRIED}")
        case _ if 300 <= status < 400:
            return ModelRequestRefused(
                f"{base} redirects ({status}).",
                mend="Give the base URL that it leads to; keys are not sent along with redirections.",
            )
        case _ if status >= 500:
            return ModelOverloaded(f"{to} cannot answer now ({status}).", mend=f"Try again later. {NOT_TRIED}")
        case _:
            return ModelRequestRefused(f"{to} does not say what models it has ({status}).", mend=NOT_TRIED)
