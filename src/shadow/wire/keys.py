"""Keys of users and projects for providers of models, as messages of the server's API. No answer has a key in it."""

from pydantic import Field

from shadow.core.keys import MAX_KEY_CHARS, MAX_URL_CHARS, ProviderKey
from shadow.wire.message import Message


class NewKeyMessage(Message):
    key: str = Field(default="", max_length=MAX_KEY_CHARS, repr=False)
    """Empty where the provider takes none (``ollama``, ``compatible``)."""
    base_url: str | None = Field(default=None, max_length=MAX_URL_CHARS)
    """Where the provider is reached; without it at its own address."""
    check: bool = True
    """Try the key first, and keep nothing where the provider refuses it or cannot be reached."""


class KeyMessage(Message, core=ProviderKey):
    provider: str
    base_url: str | None
    hint: str
    """The last characters of the key; empty of a short one."""
    added_by: str
    """Id of a user."""
    added_at: float
    """Seconds since 1970."""


class KeyListMessage(Message):
    keys: tuple[KeyMessage, ...]
