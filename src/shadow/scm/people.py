"""Who the user of this host is to git: the co-author of what an agent does for them."""

import re

from shadow.core.git import GitPerson
from shadow.scm.git import Call, git


async def users_identity() -> GitPerson | None:
    """From the user's own git configuration; ``None`` where it names nobody."""
    found: list[str] = []
    for name in ("user.name", "user.email"):
        call = Call(arguments=["config", "--global", "--get", name], users_config=True)
        said = (await git(call, check=False)).stdout.decode(errors="replace")
        found.append(re.sub(r"[<>\x00-\x1f\x7f]", "", said).strip())
    return GitPerson(name=found[0], email=found[1]) if all(found) else None
