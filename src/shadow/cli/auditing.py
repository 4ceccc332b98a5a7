"""What ``shadow audit`` does: reads the record, of this host's database or of a server."""

import re
import time
from dataclasses import asdict

import typer

from shadow.bootstrap import open_tasks, start_logging
from shadow.cli.outcome import DONE, FAILED, WrongUsage, print_json, say
from shadow.cli.servers import check_here, chosen_url, open_server
from shadow.cli.tables import print_table
from shadow.core.audit import AuditEntry, AuditHead
from shadow.db import audit
from shadow.settings import load_settings


async def show(*, user: str | None, object_: str | None, before: int | None, limit: int, as_json: bool) -> int:
    settings = load_settings()
    start_logging(settings)
    url = chosen_url(settings)
    if url is not None:
        async with open_server(settings, url) as shadow:
            found = await shadow.accounts.audit(before=before, limit=limit, user_id=user, object_=object_)
    else:
        async with open_tasks(settings) as tasks, tasks.database.read() as connection:
            found = await audit.page(connection, before=before, limit=limit, user_id=user, object_=object_)
    if as_json:
        print_json({"entries": [_flat(entry) for entry in found]})
        return DONE
    print_table(
        ("NUMBER", "TIME", "USER", "FROM", "OPERATION", "OBJECT", "RESULT"),
        [
            (
                str(entry.seq),
                _time(entry.at),
                entry.content.user_id or "-",
                entry.content.source,
                f"{entry.content.method} {entry.content.route}",
                entry.content.object or "-",
                _result(entry),
            )
            for entry in found
        ],
    )
    return DONE


async def verify(*, expect: str | None, as_json: bool) -> int:
    expected = None if expect is None else _head(expect)
    settings = load_settings()
    # Whoever changed a server's record could have its server say that it is whole.
    check_here(settings, "`shadow audit verify`", mend="Run it on the server's host, with --server none.")
    async with open_tasks(settings) as tasks:
        verdict = await audit.verify(tasks.database, expected=expected)
    if as_json:
        told = {"start": str(verdict.start), "since": verdict.since, "head": str(verdict.head)}
        print_json({**told, "broken_at": verdict.broken_at, "fault": verdict.fault})
    elif verdict.broken_at is None:
        typer.echo(verdict.head)
        say(f"{verdict.head.seq - verdict.start.seq} entries, each as it was written.")
        if verdict.start.seq and verdict.since is not None:
            say(f"Complete since {_time(verdict.since)}, entry {verdict.start.seq + 1}; what was older was pruned.")
    else:
        say(f"shadow: The record was changed at entry {verdict.broken_at}: {verdict.fault}.", style="red")
        say(
            f"  Up to entry {verdict.head.seq} it is as it was written. A backup has the rest, if it is older than the change."
        )
    return DONE if verdict.broken_at is None else FAILED


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _head(text: str) -> AuditHead:
    """Raises: WrongUsage."""
    found = re.fullmatch(r"(\d{1,10}):([0-9a-f]{64})", text)
    if found is None:
        raise WrongUsage(f"--expect cannot be {text!r}.", mend="Give what `shadow audit verify` printed.")
    return AuditHead(seq=int(found[1]), hash=found[2])


def _flat(entry: AuditEntry) -> dict[str, object]:
    return {"seq": entry.seq, "at": entry.at, **asdict(entry.content), "previous": entry.previous, "hash": entry.hash}


def _result(entry: AuditEntry) -> str:
    content = entry.content
    if content.status is None:
        return content.phase
    return f"{content.status} {content.code}" if content.code else str(content.status)
