"""HTTP to a server of large files and to where it leads: each hop through the proxy of the access, nothing trusted, all bounded.

Redirects are followed by hand. The credential of the access goes to the repository's own scheme, host and port; headers that a
server gave for an address go to that address's. Nothing else goes anywhere, and what began with https stays with it.
"""

import asyncio
import os
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from shadow.core.errors import Denied, LimitExceeded, NotFound, ShadowError
from shadow.core.repositories import Credential, RemoteRepository, Scheme
from shadow.scm.access import Access
from shadow.scm.failures import CredentialsWanted, RemoteUnreachable, TlsFailed, UnsoundRepository
from shadow.scm.git import git
from shadow.scm.users_credentials import users_credentials

MAX_REDIRECTS = 5
MAX_URL = 8 * 1024
CONNECT_S = 60.0
PIECE_BYTES = 256 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_WITHOUT = "or leave --lfs away."
_PUSH = "Run `git lfs push --all` there; .lfsconfig is not followed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An address that a server named, and the headers that it gave for it."""

    url: URL
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


def parse_link(href: object, headers: Mapping[str, str], *, encrypted: bool) -> Link:
    """``encrypted``: it was named by one that is. Raises: UnsoundRepository, Denied."""
    if (
        not isinstance(href, str)
        or not re.fullmatch(r"https?://[\x21-\x7e]+", href, re.IGNORECASE)
        or len(href) > MAX_URL
    ):
        raise bad_answer("an address that is none of the web")
    try:
        url = URL(href, encoded=True)  # as it is: it may be signed
        port = url.port
    except ValueError as error:
        raise bad_answer("an address that is none of the web") from error
    if url.host is None or not port or url.raw_user is not None or url.raw_password is not None:
        raise bad_answer("an address without a host, or with a credential in it")
    if encrypted and url.scheme != "https":
        raise Denied(f"{url.origin()} is where large files are said to be, but it is not encrypted.", mend=_PUSH)
    return Link(url=url, headers=headers)


def bad_answer(what: str) -> UnsoundRepository:
    return UnsoundRepository(
        f"The server of the large files answered with {what}.", mend=f"Ask whoever runs it, {_WITHOUT}"
    )


def status_error(status: int, about: str) -> ShadowError:
    """For a status that is not 200, of an answer or, in an answer, of one object."""
    message = f"{about} failed with status {status}."
    match status:
        case 401 | 403:
            return CredentialsWanted(
                message, mend="Set SHADOW_GIT_TOKENS=HOST=TOKEN, or have a ~/.netrc entry or a git credential helper."
            )
        case 404 | 410:
            return NotFound(message, mend=_PUSH)
        case 407:
            return Denied(message, mend="The proxy of SHADOW_GIT_PROXY wants another credential.")
        case 408 | 425 | 429 | 509:
            return RemoteUnreachable(message, mend="Try again later.")
        case _ if status >= 500:
            return RemoteUnreachable(message, mend="Try again later.")
        case _:
            return UnsoundRepository(message, mend=f"Ask whoever runs the server, {_WITHOUT}")


class LfsHttp:
    """Requests on behalf of one fetch."""

    def __init__(self, session: aiohttp.ClientSession, access: Access, repository: RemoteRepository) -> None:
        self._session = session
        self._access = access
        self._repository = repository
        self._credential = access.credential
        self._others: list[Credential] | None = None
        """Of the user's own; ``None``: not looked for yet. None where there is one already, or where it could be read."""
        if access.credential is not None or (repository.scheme is Scheme.HTTP and not repository.is_loopback):
            self._others = []
        self._asking = asyncio.Lock()
        assert access.proxy is not None
        proxy = URL(access.proxy)
        self._proxy = proxy.with_user(None)
        known = Credential(username=proxy.user, password=proxy.password or "") if proxy.user else None
        self._proxy_headers = {"Proxy-Authorization": _basic(known)} if known else {}

    @staticmethod
    @asynccontextmanager
    async def opened(access: Access, repository: RemoteRepository, *, silence_s: float) -> "AsyncGenerator[LfsHttp]":
        """``silence_s``: how long the other side may say nothing."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, ssl=await _trust(access, repository)),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": "shadow"},
            auto_decompress=False,
            read_bufsize=PIECE_BYTES,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s),
        ) as session:
            yield LfsHttp(session, access, repository)

    @asynccontextmanager
    async def get(self, link: Link) -> AsyncGenerator[aiohttp.ClientResponse]:
        """An answer with status 200. Raises: as ``post``."""
        async with self._answer("GET", link, None) as response:
            yield response

    async def post(self, link: Link, body: bytes, *, limit_bytes: int) -> bytes:
        """Raises: CredentialsWanted, NotFound, RemoteUnreachable, TlsFailed, Denied, LimitExceeded, UnsoundRepository."""
        async with self._answer("POST", link, body) as response:
            answer = bytearray()
            async for piece in response.content.iter_any():
                answer += piece
                if len(answer) > limit_bytes:
                    raise LimitExceeded(
                        f"The server of the large files answers with more than {limit_bytes} bytes.",
                        mend=f"Ask whoever runs it, {_WITHOUT}",
                    )
            return bytes(answer)

    @asynccontextmanager
    async def _answer(self, method: str, link: Link, body: bytes | None) -> AsyncGenerator[aiohttp.ClientResponse]:
        redirects = 0
        while True:
            about = f"{self._access.call.about} (large files from {link.url.origin()})"
            ours = self._is_own(link.url) and not _authorizes(link.headers)
            credential = self._credential if ours else None
            headers = {**link.headers, **({"Authorization": _basic(credential)} if credential else {})}
            async with self._hop(method, link.url, headers, body, about) as response:
                if response.status == 200:
                    yield response
                    return
                if response.status in _REDIRECTS and "Location" in response.headers:
                    link = _follow(link, response.headers["Location"])
                    redirects += 1
                    if redirects > MAX_REDIRECTS:
                        raise bad_answer(f"more than {MAX_REDIRECTS} redirects")
                    continue
                _check_proxy(response.status, response.reason or "", about)
                if response.status != 401 or not ours:
                    raise status_error(response.status, about)
            if not await self._has_other(credential):
                raise status_error(401, about)

    def _is_own(self, url: URL) -> bool:
        """Whether it is on the repository's own scheme, host and port; ssh's are nobody's here."""
        own = self._repository
        return (url.scheme, (url.host or "").lower(), url.port) == (own.scheme.value, own.host, own.port)

    async def _has_other(self, refused: Credential | None) -> bool:
        """Whether there is a credential besides the one that was refused; each of the user's is tried once."""
        async with self._asking:
            if self._credential == refused:
                if self._others is None:
                    self._others = list(await users_credentials(self._access, self._repository))
                self._credential = self._others.pop(0) if self._others else None
            return self._credential is not None

    @asynccontextmanager
    async def _hop(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None, about: str
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        tunnel = url.scheme == "https"  # then the proxy's own request is another one
        with _translated(about):
            async with self._session.request(
                method,
                url,
                headers=headers if tunnel else {**headers, **self._proxy_headers},
                data=body,
                allow_redirects=False,
                proxy=self._proxy,
                proxy_headers=self._proxy_headers if tunnel else None,
            ) as response:
                yield response


def _authorizes(headers: Mapping[str, str]) -> bool:
    return any(name.lower() == "authorization" for name in headers)


def _basic(credential: Credential) -> str:
    return f"Basic {b64encode(f'{credential.username}:{credential.password}'.encode()).decode()}"


def _follow(link: Link, location: str) -> Link:
    """What was given for one host goes to no other."""
    target = parse_link(urljoin(str(link.url), location), link.headers, encrypted=link.url.scheme == "https")
    here, there = ((url.scheme, url.host, url.port) for url in (link.url, target.url))
    return target if here == there else replace(target, headers=_without_secrets(link))


def _without_secrets(link: Link) -> Mapping[str, str]:
    return {name: value for name, value in link.headers.items() if name in ("Accept", "Content-Type")}


def _check_proxy(status: int, reason: str, about: str) -> None:
    """What the guard says of a hop that it does not allow. Whoever imitates it gets the same refusal."""
    if status == 403 and reason.startswith("Egress refused"):
        raise Denied(
            f"{about} failed: {reason}.",
            mend=f"Whoever runs Shadow can allow the host in the settings; or look at where the server leads, {_WITHOUT}",
        )


@contextmanager
def _translated(about: str) -> Generator[None]:
    try:
        yield
    except aiohttp.ClientHttpProxyError as error:
        _check_proxy(error.status, error.message, about)
        raise (Denied if error.status in (403, 407) else RemoteUnreachable)(
            f"{about} failed: the proxy answers {error.status}.", mend="Look at the address and at SHADOW_GIT_PROXY."
        ) from error
    except (aiohttp.ClientSSLError, ssl.SSLError) as error:
        raise TlsFailed(
            f"{about} failed: the server could not prove who it is.",
            mend="Mend its certificate, or name your authority's file in GIT_SSL_CAINFO.",
        ) from error
    except (aiohttp.ClientResponseError, aiohttp.InvalidURL) as error:
        raise bad_answer("something that is not HTTP") from error
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        raise RemoteUnreachable(
            f"{about} failed: {type(error).__name__}.", mend="Check the address and the network, then try again."
        ) from error


async def _trust(access: Access, repository: RemoteRepository) -> ssl.SSLContext:
    """The system's authorities, and the one that the user has named for git."""
    named = os.environ.get("GIT_SSL_CAINFO", "")
    if not named:
        arguments = ["config", "--type=path", "--get-urlmatch", "http.sslCAInfo", repository.url]
        named = os.fsdecode((await git(replace(access.call, arguments=arguments), check=False)).stdout).rstrip("\n")
    try:
        context = ssl.create_default_context()
        if named:
            context.load_verify_locations(named)
    except OSError as error:
        raise TlsFailed(
            f"The certificates in {named!r} cannot be read.", mend="Look at GIT_SSL_CAINFO and http.sslCAInfo."
        ) from error
    return context
