"""What a model is told before the conversation: who it is, where it works, and the repository's own rules as untrusted data."""

from dataclasses import dataclass

from shadow.agent.prompts.loading import filled
from shadow.agent.tools.shown import shown_path, shown_text, whole_end
from shadow.core.errors import Denied, NotFound, Rejected
from shadow.core.repositories import Checkout
from shadow.execution.interface import ToolExecutor

RULES = ("AGENTS.md", ".shadow/rules.md")
MAX_RULES_BYTES = 16 * 1024
"""Of each file."""
MAX_FACT_CHARS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the model is told of its workspace. What is not known is not said."""

    checkout: Checkout
    check: str | None = None
    """The shell line that the product will judge the work by."""
    allowed: tuple[str, ...] = ()
    """Domains that the egress policy lets through; none: there is no network."""
    time_s: float | None = None
    """How long the run may take."""
    today: str | None = None


async def instructions(executor: ToolExecutor, facts: Facts) -> str:
    """Raises: what the executor raises where the workspace cannot be reached."""
    parts = [filled("system", {"facts": _facts(facts)})]
    for path in RULES:
        rules = await _rules(executor, path)
        if rules is not None:
            parts.append(rules)
    return "\n\n".join(parts)


def _facts(facts: Facts) -> str:
    checkout = facts.checkout
    base = f" of {_fact(checkout.base_branch)}" if checkout.base_branch is not None else ""
    lines = [
        "Your workspace:",
        "- Paths are relative to its root, which holds the repository and where commands start.",
        f"- The work tree is on branch {_fact(checkout.branch)}, which began at commit {_fact(checkout.base_commit)}{base}.",
    ]
    if facts.check is not None:
        lines.append(
            f"- The work will be judged by this command, run elsewhere on what you deliver: {_fact(facts.check)}. "
            "Run it yourself before you finish."
        )
    if facts.allowed:
        lines.append(f"- The network lets through: {', '.join(map(_fact, facts.allowed))}. Nothing else answers.")
    else:
        lines.append("- There is no network.")
    if facts.time_s is not None:
        lines.append(f"- You have {facts.time_s / 60:.0f} minutes.")
    if facts.today is not None:
        lines.append(f"- Today is {_fact(facts.today)}.")
    return "\n".join(lines)


def _fact(text: str) -> str:
    """On one line, whatever it holds: some of these come from the repository."""
    return shown_path(text if len(text) <= MAX_FACT_CHARS else text[:MAX_FACT_CHARS] + "…")


async def _rules(executor: ToolExecutor, path: str) -> str | None:
    """Each line is marked, so that no text of the file can look as if it came from elsewhere."""
    try:
        content = await executor.read_file(path, limit_bytes=MAX_RULES_BYTES)
    except NotFound:
        return None
    except (Rejected, Denied) as error:  # a link that leads out, a directory, a pipe
        return f"The repository's {path} cannot be read ({error.code})."
    data = content.content
    more = content.size_bytes > len(data)
    text = quoted(data[: whole_end(data)] if more else data)
    if not text:
        return None
    if more:
        text += f"\nThe file goes on: {content.size_bytes} bytes altogether; read_file shows the rest."
    return filled("rules", {"path": path, "quoted": text})


def quoted(data: bytes) -> str:
    return "\n".join(f"| {line}" for line in shown_text(data).strip().splitlines())
