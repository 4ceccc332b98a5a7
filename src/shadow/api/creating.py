"""Creations under an idempotency key: a repeat is answered as the first time, and nothing is made twice.

The answer is kept in the transaction that creates, so that a repeat finds both or neither, on any server and after any crash.
What failed is not kept: a repeat tries again. Secrets are not kept: a repeat tells of what was made, and not its secret.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request

from shadow.api.access import principal
from shadow.core.errors import KeyReused, Rejected, Unavailable
from shadow.db import answers
from shadow.db.answers import KeptAnswer, KeyTaken
from shadow.db.database import Database, Transaction
from shadow.http.responses import Answer
from shadow.wire.message import Message

CREATED = 201
MAX_KEY_CHARS = 255
HEADERS = {
    "Idempotency-Key": "Up to 255 printable characters of the caller's choice. For 24 hours a repeat with it, by the same user "
    "and with the same body, is answered as the first time (with `Idempotency-Replayed: true`, and without secrets)."
}

Keep = Callable[[Transaction, Message, str | None], Awaitable[None]]
"""To be called in the transaction that creates, with what is answered, as it may be kept, and the made thing's address."""


def created(told: Message, *, location: str | None = None) -> Answer:
    headers = {} if location is None else {b"location": location.encode()}
    return Answer(told.json_bytes(), status=CREATED, headers=headers)


async def once(
    database: Database, request: Request, asked: Message, create: Callable[[Keep], Awaitable[Answer]]
) -> Answer:
    """What ``create`` answers, or has answered before. Raises: Rejected: the key is none; KeyReused: for something else."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return await create(_keep_nothing)
    if not (0 < len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        raise Rejected(f"Idempotency-Key has 1 to {MAX_KEY_CHARS} printable characters.")
    named: dict[str, Any] = {
        "user_id": principal(request).user.id,
        "key_hash": hashlib.sha256(key.encode()).hexdigest(),
    }
    asked_hash = _hash(request, asked)

    async def keep(transaction: Transaction, told: Message, location: str | None) -> None:
        kept = KeptAnswer(asked_hash=asked_hash, body=told.json_bytes().decode(), location=location)
        await answers.add(transaction, kept, **named)

    async def before() -> Answer | None:
        async with database.read() as connection:
            found = await answers.find(connection, now=await database.now(connection), **named)
        return None if found is None else _repeated(found, asked_hash)

    found = await before()
    if found is not None:
        return found
    try:
        return await create(keep)
    except KeyTaken as error:
        found = await before()
        if found is None:
            raise Unavailable("The first request with this key has just expired.", mend="Repeat it.") from error
        return found


def _repeated(found: KeptAnswer, asked_hash: str) -> Answer:
    if found.asked_hash != asked_hash:
        raise KeyReused(
            "Something else was asked under this idempotency key before.", mend="Each creation takes a key of its own."
        )
    headers = {b"idempotency-replayed": b"true"}
    if found.location is not None:
        headers[b"location"] = found.location.encode()
    return Answer(found.body.encode(), status=CREATED, headers=headers)


def _hash(request: Request, asked: Message) -> str:
    address = f"{request.method} {request.scope['path']}\n".encode("utf-8", "surrogateescape")
    return hashlib.sha256(address + asked.json_bytes()).hexdigest()


async def _keep_nothing(transaction: Transaction, told: Message, location: str | None) -> None: ...
