"""What ``shadow project …`` does: one call of the server each, after it was found out which project is meant."""

import time
from collections.abc import Sequence
from dataclasses import asdict

from shadow.cli.outcome import DONE, print_json, say
from shadow.cli.projects import choose_project, project_role
from shadow.cli.servers import open_chosen_server
from shadow.cli.tables import print_table
from shadow.cli.text import span
from shadow.client.shadow import Shadow
from shadow.core.accounts import Member, Project
from shadow.terminal.neutral import printable


async def create(name: str, *, as_json: bool) -> int:
    async with open_chosen_server() as shadow:
        project = await shadow.projects.create(name)
    if as_json:
        print_json({"project": asdict(project)})
    else:
        say(f"You are its only member. Add others: shadow project add {project.id} USER")
        print(project.id)
    return DONE


async def list_all(*, as_json: bool) -> int:
    async with open_chosen_server() as shadow:
        found = await shadow.projects.list()
    if as_json:
        print_json({"projects": [asdict(project) for project in found]})
        return DONE
    if not found:
        say("You are in no project. `shadow project create NAME` makes one; a member of one adds you to it.")
        return DONE
    now = time.time()
    rows = [(project.id, printable(project.name), f"{span(now - project.created_at)} ago") for project in found]
    print_table(("ID", "NAME", "MADE"), rows)
    return DONE


async def show(reference: str, *, as_json: bool) -> int:
    async with open_chosen_server() as shadow:
        project, members = await shadow.projects.get((await _chosen(shadow, reference)).id)
    _tell(project, members, as_json=as_json)
    return DONE


async def rename(reference: str, name: str, *, as_json: bool) -> int:
    async with open_chosen_server() as shadow:
        project = await shadow.projects.rename((await _chosen(shadow, reference)).id, name)
    if as_json:
        print_json({"project": asdict(project)})
    else:
        print(f"{project.id}  {printable(project.name)}")
    return DONE


async def delete(reference: str, *, as_json: bool) -> int:
    async with open_chosen_server() as shadow:
        project = await _chosen(shadow, reference)
        await shadow.projects.delete(project.id)
    if as_json:
        print_json({"deleted": project.id})
    else:
        print(project.id)
    return DONE


async def add(reference: str, user: str, *, role: str, as_json: bool) -> int:
    wanted = project_role(role)
    async with open_chosen_server() as shadow:
        chosen = await _chosen(shadow, reference)
        project, members = await shadow.projects.set_member(chosen.id, user, role=wanted)
    _tell(project, members, as_json=as_json)
    return DONE


async def remove(reference: str, user: str, *, as_json: bool) -> int:
    async with open_chosen_server() as shadow:
        project = await _chosen(shadow, reference)
        await shadow.projects.remove_member(project.id, user)
    if as_json:
        print_json({"project": project.id, "removed": user})
    else:
        print(printable(user))
    return DONE


async def _chosen(shadow: Shadow, reference: str) -> Project:
    return choose_project(reference, await shadow.projects.list())


def _tell(project: Project, members: Sequence[Member], *, as_json: bool) -> None:
    if as_json:
        print_json({"project": asdict(project), "members": [asdict(member) for member in members]})
        return
    say(f"{project.name} ({project.id})", style="bold")
    print_table(("USER", "NAME", "ROLE"), [(m.user_id, printable(m.name), m.role.value) for m in members])
