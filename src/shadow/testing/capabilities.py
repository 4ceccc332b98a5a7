"""Checks of what an executor says of itself."""

from shadow.core.errors import Rejected
from shadow.testing.contract import CheckSkipped, expect, expect_equal, refused
from shadow.testing.site import Site


async def check_capabilities_are_told(site: Site) -> None:
    """An executor's capabilities are told without a call, and stay the same."""
    told = site.executor.capabilities
    expect_equal(site.executor.capabilities, told, "the capabilities, asked again")


async def check_no_network_means_none(site: Site) -> None:
    """Where no network is claimed, commands see no interface but the loopback."""
    if site.executor.capabilities.network:
        raise CheckSkipped("the implementation claims a network")
    lines = (await site.bash("cat /proc/net/dev")).splitlines()[2:]
    expect_equal([line.partition(b":")[0].strip() for line in lines], [b"lo"], "the interfaces")


async def check_a_claimed_network_is_there(site: Site) -> None:
    """Where a network is claimed, commands see an interface besides the loopback."""
    lines = (await site.bash("cat /proc/net/dev")).splitlines()[2:]
    if not [line for line in lines if not line.strip().startswith(b"lo:")]:
        raise CheckSkipped("this host has no network to give")


async def check_health_is_told(site: Site) -> None:
    """Health tells version, time, epoch and how many commands run."""
    command = await site.start_bash("read")
    health = await site.executor.health()
    expect(health.version, "No version is told.")
    expect(health.uptime_s >= 0, f"The workspace is up for {health.uptime_s} s.")
    expect_equal(health.epoch, site.executor.epoch, "the epoch")
    expect(health.commands_running >= 1, f"{health.commands_running} commands are said to run.")
    later = await site.executor.health()
    expect(later.uptime_s >= health.uptime_s, "The workspace has become younger.")
    await site.executor.kill(command.id)


async def check_a_lease_is_renewed(site: Site) -> None:
    """A renewed lease runs from now."""
    await site.executor.renew_lease(5000.0)
    remaining = (await site.executor.health()).lease_remaining_s
    expect(remaining is not None and 4000 < remaining <= 5000, f"After a renewal for 5000 s {remaining} s remain.")
    await site.executor.renew_lease(6000.0)
    remaining = (await site.executor.health()).lease_remaining_s
    expect(remaining is not None and 5000 < remaining <= 6000, f"After a renewal for 6000 s {remaining} s remain.")


async def check_impossible_leases_are_rejected(site: Site) -> None:
    """A lease of no time, of less, or of no number is Rejected, and the workspace lives on."""
    for lease_s in (0.0, -1.0, float("nan"), float("inf")):
        with refused(Rejected, what=f"a lease of {lease_s} s"):
            await site.executor.renew_lease(lease_s)
    await site.bash("true")


NEEDS = {check_no_network_means_none: ("programs",), check_a_claimed_network_is_there: ("programs", "network")}
ALONE = frozenset({check_a_lease_is_renewed, check_impossible_leases_are_rejected})
