"""Keys of users and projects for providers of models: whose they are, where they are good, what is shown. No I/O, no clock."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from shadow.core.accounts import ProjectId, UserId
from shadow.core.addresses import is_canonical_host
from shadow.core.egress import EgressRule
from shadow.core.errors import NotFound, Rejected, Unavailable
from shadow.core.tasks import Task

KEY_PROVIDERS = ("anthropic", "openai", "openrouter", "ollama", "compatible")
"""Each has one key: models of ``openai`` and ``openai-chat`` share theirs."""
WITHOUT_ADDRESS = frozenset({"ollama", "compatible"})
"""Those that are nowhere by themselves: a key says where. They may take none."""
MAX_KEY_CHARS = 500
MAX_URL_CHARS = 1000
HINT_CHARS = 4
_HIDES = 16
"""Of a shorter key nothing is shown: its end would be too much of it."""
_URL = re.compile(r"https?://[!-~]+", re.IGNORECASE)
_ODD = frozenset("\\@?#<>\"'`{}|^%")
"""What a base URL needs nowhere, and readers of URLs disagree about."""


class SealingKeyMissing(Unavailable):
    """The key that stored keys are encrypted with is not there, or is another one. ``details["missing"]``: its name."""

    code = "sealing_key_missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOwner:
    """A user, or a project."""

    user_id: UserId | None = None
    project_id: ProjectId | None = None

    def __post_init__(self) -> None:
        if (self.user_id is None) == (self.project_id is None):
            raise ValueError("a key is of a user or of a project")

    def __str__(self) -> str:
        """What stands in rows, and is bound to the encrypted key."""
        return f"user/{self.user_id}" if self.user_id is not None else f"project/{self.project_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """On whose behalf a model is asked: the keys of the project count first, then those of the user, then the server's."""

    user_id: UserId
    project_id: ProjectId | None = None

    @property
    def owners(self) -> tuple[KeyOwner, ...]:
        """Whose keys count, the first one first."""
        own = KeyOwner(user_id=self.user_id)
        return (own,) if self.project_id is None else (KeyOwner(project_id=self.project_id), own)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderKey:
    """What anybody is told of a stored key. Times are seconds since 1970."""

    provider: str
    base_url: str | None
    """``None``: the provider's own."""
    hint: str
    """Its last characters, as far as they give nothing away."""
    added_by: str
    """Id of a user."""
    added_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseUrl:
    """Where a user says that a provider is."""

    text: str
    scheme: str
    host: str
    """A canonical name, or an address without brackets."""
    port: int


def hint_of(key: str) -> str:
    return key[-HINT_CHARS:] if len(key) >= _HIDES else ""


def check_provider(name: str) -> None:
    """Raises: NotFound."""
    if name not in KEY_PROVIDERS:
        raise NotFound(f"There is no provider {name[:50]!r}.", mend=f"Choose from {', '.join(KEY_PROVIDERS)}.")


def check_key(key: str, *, provider: str) -> None:
    """Raises: Rejected: no provider gives such a key."""
    if not key and provider not in WITHOUT_ADDRESS:
        raise Rejected("The key is empty.", mend="Give the key that the provider shows you.")
    if len(key) > MAX_KEY_CHARS or not key.isascii() or any(not "!" <= character <= "~" for character in key):
        raise Rejected("The key holds characters that no key has, or too many.", mend="Copy it again, without blanks.")


def parse_base_url(text: str, *, named: tuple[EgressRule, ...] = (), may_be_plain: bool = False) -> BaseUrl:
    """``named``: hosts that the operator's rules name, which may be reached without encryption; ``may_be_plain``: any may.

    Raises: Rejected: several readers might understand several things, or keys would go over the network in the clear.
    """
    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as error:
        raise _no_url() from error
    if len(url) > MAX_URL_CHARS or not _URL.fullmatch(url) or _ODD & set(url):
        raise _no_url()
    scheme = parts.scheme.lower()
    port = port if port is not None else 443 if scheme == "https" else 80
    if not is_canonical_host(host) or not 0 < port < 65536:
        raise Rejected(
            "The base URL's host is neither a name, as DNS has it, nor an address written the usual way.",
            mend="Write it as https://host/path.",
        )
    if scheme == "http" and not may_be_plain and not any(rule.matches(host, port, "POST") for rule in named):
        raise Rejected(
            "The base URL is not encrypted, and the key would go along.",
            mend="Use https://, or ask whoever runs the server to name the host in SHADOW_MODEL_EGRESS.",
        )
    return BaseUrl(text=url, scheme=scheme, host=host, port=port)


def _no_url() -> Rejected:
    return Rejected("This is no base URL.", mend="Write it as https://host/path, without users, queries and the like.")


def payer_of(task: Task) -> Payer:
    return Payer(user_id=UserId(task.owner), project_id=task.project_id)
