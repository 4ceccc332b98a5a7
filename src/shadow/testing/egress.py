"""Checks of egress: what no rule names is refused and told, what is set is what is shown, and it can change at any time."""

from shadow.core.commands import CommandSpec, shell
from shadow.core.egress import EgressPolicy, parse_rules
from shadow.core.egress_status import EgressEventKind
from shadow.core.errors import NotFound, Rejected, Unsupported
from shadow.core.ids import WorkspaceId
from shadow.core.workspaces import WorkspaceSpec
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.testing.contract import DEADLINE_S, CheckSkipped, each_refused, expect, expect_equal
from shadow.testing.workspaces import a_workspace

RULES = EgressPolicy(rules=parse_rules(("allowed.example", "private:git.example:8443")))
# The proxy that every program finds, asked for a tunnel without any program that could be missing.
_ASK = (
    'p=${HTTPS_PROXY#*://}; exec 3<>"/dev/tcp/${p%%:*}/${p##*:}" || exit 9; '
    "printf 'CONNECT %s HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n' TARGET TARGET >&3; head -n 1 <&3"
)


async def _ask(executor: ToolExecutor, target: str) -> str:
    """The first line of the proxy's answer."""
    argv = shell(_ASK.replace("TARGET", target))
    result = await executor.run(CommandSpec(argv=argv, timeout_s=DEADLINE_S), wait_s=DEADLINE_S)
    expect_equal(result.exit_code, 0, f"asking the proxy, which said {result.stderr!r}")
    return result.stdout.decode(errors="replace")


async def check_nothing_is_allowed_by_default(manager: WorkspaceManager) -> None:
    """A workspace with no rule refuses every host, at once."""
    async with a_workspace(manager, egress=EgressPolicy()) as workspace, await manager.attach(workspace.id) as executor:
        expect_equal((await manager.egress(workspace.id)).policy.rules, (), "the rules")
        expect(" 403 " in await _ask(executor, "allowed.example:443"), "A host that no rule names is not refused.")


async def check_what_no_rule_names_is_refused_and_told(manager: WorkspaceManager) -> None:
    """A host that no rule names is refused, and the refusal is an event with host, port and the rule that is missing."""
    async with a_workspace(manager, egress=RULES) as workspace, await manager.attach(workspace.id) as executor:
        for target in ("other.example:443", "allowed.example:22", "10.0.0.1:443", "not-allowed.example:443"):
            expect(" 403 " in await _ask(executor, target), f"{target} is not refused.")
        status = await manager.egress(workspace.id)
        told = [(e.host, e.port, e.rule) for e in status.events if e.kind is EgressEventKind.REFUSED]
        expect(("other.example", 443, "other.example") in told, f"The refusal is not among {told}.")
        expect(("allowed.example", 22, "allowed.example:22") in told, f"The refusal is not among {told}.")
        expect_equal(status.counters.refused, 4, "how many refusals are counted")
        expect_equal(status.counters.connections, 0, "how many connections are counted")


async def check_a_policy_can_be_changed(manager: WorkspaceManager) -> None:
    """The policy that was set last is shown, and holds in a workspace that lives."""
    async with a_workspace(manager, egress=RULES) as workspace, await manager.attach(workspace.id) as executor:
        expect_equal((await manager.egress(workspace.id)).policy, RULES, "the policy of the spec")
        other = EgressPolicy(rules=parse_rules(("other.invalid",)))
        await manager.set_egress(workspace.id, other)
        expect_equal((await manager.egress(workspace.id)).policy, other, "the policy that was set")
        expect(" 403 " in await _ask(executor, "allowed.example:443"), "A host that is allowed no more is not refused.")
        # Names below .invalid never resolve: that it was tried shows that the rule holds.
        expect(" 403 " not in await _ask(executor, "other.invalid:443"), "A host that is allowed now is refused.")
        await manager.set_egress(workspace.id, EgressPolicy())
        expect(" 403 " in await _ask(executor, "other.invalid:443"), "A host is not refused though nothing is allowed.")


async def check_egress_of_unknown_workspaces_is_not_found(manager: WorkspaceManager) -> None:
    """The policy of a workspace that nobody made can neither be read nor set."""
    for id_ in (WorkspaceId("ws_nobodymadethis"), WorkspaceId("../workspaces")):
        calls = {"egress": manager.egress(id_), "set_egress": manager.set_egress(id_, RULES)}
        await each_refused(calls, NotFound, Rejected, what=f"of {id_!r}")


async def check_what_is_not_claimed_is_unsupported(manager: WorkspaceManager) -> None:
    """Where egress is not claimed, a policy is refused as Unsupported, not taken and ignored."""
    if manager.capabilities.egress:
        raise CheckSkipped("the implementation claims egress")
    async with a_workspace(manager) as workspace:
        calls = {
            "egress": manager.egress(workspace.id),
            "set_egress": manager.set_egress(workspace.id, RULES),
            "create": manager.create(WorkspaceSpec(egress=RULES)),
        }
        await each_refused(calls, Unsupported, what="without the capability")


NEEDS = dict.fromkeys(
    (
        check_nothing_is_allowed_by_default,
        check_what_no_rule_names_is_refused_and_told,
        check_a_policy_can_be_changed,
        check_egress_of_unknown_workspaces_is_not_found,
    ),
    ("egress",),
)
