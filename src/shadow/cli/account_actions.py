"""``shadow login|logout``, ``shadow token …`` and ``shadow user …``: users of a server and their credentials."""

import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import typer

from shadow.bootstrap import start_logging
from shadow.cli.opening import seconds
from shadow.cli.outcome import DONE, WrongUsage, print_json, say
from shadow.cli.projects import choose_project, project_role
from shadow.cli.servers import chosen_url, load_logins, open_chosen_server
from shadow.cli.tables import print_table
from shadow.cli.text import span
from shadow.client.accounts import AccountsClient, Invited
from shadow.client.addresses import server_url
from shadow.client.shadow import Shadow
from shadow.core.accounts import MAX_NAME_CHARS, Credential, Role, Scope, User, parse_scopes
from shadow.core.errors import Conflict, NotFound, OutcomeUnknown, Unauthenticated
from shadow.settings import load_settings
from shadow.terminal.neutral import printable

FOR_PROGRAMS = (Scope.TASKS_READ, Scope.TASKS_WRITE, Scope.WORKSPACES_READ, Scope.WORKSPACES_WRITE)


async def log_in(address: str, *, code: str | None, as_json: bool) -> int:
    settings = load_settings()
    start_logging(settings)
    url = server_url(address)
    logins = load_logins()
    async with Shadow(url, insecure=settings.server_insecure) as shadow:
        await shadow.version()  # before a code is asked for, or spent on something else
    if code is None:
        if not sys.stdin.isatty():
            raise WrongUsage("There is nobody to ask for the code.", mend="Give --code CODE.")
        code = str(typer.prompt(f"The code that {url} printed, or its administrator gave you", hide_input=True))
    async with Shadow(url, insecure=settings.server_insecure) as shadow:
        token = await _exchanged(shadow, code.strip())
    async with Shadow(url, token=token, insecure=settings.server_insecure) as shadow:
        user = await shadow.accounts.me()
        replace(logins, current=url, tokens={**logins.tokens, url: token}).save()
    if as_json:
        print_json({"server": url, "user": asdict(user)})
    else:
        say(
            f"Logged in to {url} as {user.name} ({user.role.value}). Commands go there from now on; --server none: here."
        )
    return DONE


async def _exchanged(shadow: Shadow, code: str) -> str:
    """Raises: Unauthenticated, OutcomeUnknown: with where another code comes from."""
    mend = "Ask an administrator for another one (`shadow user code NAME`); a server's own user gets one with each start of it."
    try:
        return await shadow.accounts.log_in(code, name=f"shadow on {socket.gethostname()}"[:MAX_NAME_CHARS])
    except Unauthenticated as error:
        raise Unauthenticated("The code is not good: wrong, used already, or too old.", mend=mend) from error
    except OutcomeUnknown as error:
        raise OutcomeUnknown("No answer came: the code may be used up.", mend=f"Try it again. {mend}") from error


async def log_out(*, as_json: bool) -> int:
    """The token is forgotten here also where the server does not take it any more."""
    settings = load_settings()
    start_logging(settings)
    url, logins = chosen_url(settings), load_logins()
    if url is None or url not in logins.tokens:
        raise NotFound("You are not logged in.", mend="`shadow login URL` does it.")
    try:
        async with Shadow(url, token=logins.tokens[url], insecure=settings.server_insecure) as shadow:
            await shadow.accounts.log_out()
    except Unauthenticated:
        say(f"The server {url} did not know the token any more.", style="yellow")
    left = {known: token for known, token in logins.tokens.items() if known != url}
    replace(logins, current=None if logins.current == url else logins.current, tokens=left).save()
    if as_json:
        print_json({"server": url})
    else:
        say(f"Logged out of {url}.")
    return DONE


async def create_token(name: str, *, scopes: Sequence[str] | None, expires: str | None, as_json: bool) -> int:
    wanted = sorted(parse_scopes(scopes)) if scopes else FOR_PROGRAMS
    expires_in_s = seconds(expires, option="--expires")
    async with open_chosen_server() as shadow:
        credential, secret = await shadow.accounts.create_token(name, scopes=wanted, expires_in_s=expires_in_s)
    if as_json:
        print_json({"credential": _shown(credential), "token": secret})
    else:
        say(f"{credential.id}, for {', '.join(sorted(credential.scopes))}. It is shown this once:")
        print(secret)
    return DONE


async def list_tokens(*, as_json: bool) -> int:
    async with open_chosen_server() as shadow:
        found = await shadow.accounts.credentials()
    if as_json:
        print_json({"credentials": [_shown(one) for one in found]})
        return DONE
    now = time.time()
    rows = [
        (
            one.id,
            one.kind.value,
            printable(one.name),
            "never" if one.expires_at is None else f"in {span(one.expires_at - now)}",
            "never" if one.last_used_at is None else f"{span(now - one.last_used_at)} ago",
            " ".join(sorted(one.scopes)),
        )
        for one in found
    ]
    print_table(("ID", "KIND", "NAME", "EXPIRES", "USED", "SCOPES"), rows)
    return DONE


async def revoke(reference: str, *, as_json: bool) -> int:
    async with open_chosen_server() as shadow:
        meant = [one.id for one in await shadow.accounts.credentials() if one.id.startswith(reference)]
        if not meant:
            raise NotFound(f"You have no token {reference!r}.", mend="`shadow token list` shows all.")
        if len(meant) > 1 and reference not in meant:
            raise Conflict(f"{reference!r} may mean any of {', '.join(meant)}.", mend="Give more of the id.")
        chosen = reference if reference in meant else meant[0]
        await shadow.accounts.revoke(chosen)
    if as_json:
        print_json({"revoked": chosen})
    else:
        print(chosen)
    return DONE


async def list_users(*, as_json: bool) -> int:
    async with open_chosen_server() as shadow:
        found = await shadow.accounts.users()
    if as_json:
        print_json({"users": [asdict(user) for user in found]})
        return DONE
    now = time.time()
    rows = [
        (
            user.id,
            printable(user.name),
            user.role.value,
            "shut out" if user.disabled_at is not None else "",
            f"{span(now - user.created_at)} ago",
        )
        for user in found
    ]
    print_table(("ID", "NAME", "ROLE", "STATE", "MADE"), rows)
    return DONE


async def me(*, as_json: bool) -> int:
    async with open_chosen_server() as shadow:
        user = await shadow.accounts.me()
    if as_json:
        print_json({"server": shadow.url, "user": asdict(user)})
    else:
        print(f"{user.id}  {printable(user.name)}  {user.role.value}  {shadow.url}")
    return DONE


async def invite(name: str, *, role: str, projects: Sequence[str], in_projects_as: str | None, as_json: bool) -> int:
    wanted, role_there = _role(role), project_role(in_projects_as)
    if in_projects_as is not None and not projects:
        raise WrongUsage(
            "--as is for the projects that --project names.", mend="Give --project too, or leave out --as."
        )
    async with open_chosen_server() as shadow:
        known = await shadow.projects.list() if projects else ()
        chosen = [choose_project(reference, known) for reference in projects]  # before anybody is made
        invited = await shadow.accounts.invite(name, role=wanted)
        for project in chosen:
            await shadow.projects.set_member(project.id, invited.user.id, role=role_there)
    _tell_code(invited, shadow.url, as_json=as_json)
    return DONE


async def change(reference: str, *, role: str | None, disabled: bool | None, as_json: bool) -> int:
    if role is None and disabled is None:
        raise WrongUsage("Give --role, --disable or --enable.")
    wanted = None if role is None else _role(role)
    async with open_chosen_server() as shadow:
        found = await _user(shadow.accounts, reference)
        user = await shadow.accounts.change(found.id, role=wanted, disabled=disabled)
    if as_json:
        print_json({"user": asdict(user)})
    else:
        print(
            f"{user.id}  {printable(user.name)}  {user.role.value}{'  shut out' if user.disabled_at is not None else ''}"
        )
    return DONE


async def code(reference: str, *, as_json: bool) -> int:
    async with open_chosen_server() as shadow:
        user = await _user(shadow.accounts, reference)
        told = await shadow.accounts.code(user.id)
    _tell_code(told, shadow.url, as_json=as_json)
    return DONE


def _tell_code(told: Invited, url: str, *, as_json: bool) -> None:
    """The code alone goes to stdout."""
    if as_json:
        print_json({"user": asdict(told.user), "code": told.code, "expires_at": told.expires_at, "server": url})
        return
    left = span(told.expires_at - time.time())
    say(f"{told.user.name} ({told.user.id}) logs in with it, once, within {left}: shadow login {url} --code CODE")
    print(told.code)


async def _user(accounts: AccountsClient, reference: str) -> User:
    """Raises: NotFound."""
    for user in await accounts.users():
        if reference in (user.id, user.name):
            return user
    raise NotFound(f"There is no user {reference!r}.", mend="`shadow user list` shows all.")


def _role(text: str) -> Role:
    if text not in tuple(Role):
        raise WrongUsage(f"--role cannot be {text!r}.", mend=f"Choose from {', '.join(Role)}.")
    return Role(text)


def _shown(credential: Credential) -> dict[str, object]:
    return {**asdict(credential), "scopes": sorted(credential.scopes)}
