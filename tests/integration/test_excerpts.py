"""An excerpt covers the whole of the output: what is left out is a gap."""

from pathlib import Path

import pytest

from shadow.core.commands import CommandSpec, Gap, Output, shell
from shadow.execution.excerpts import read_excerpt
from shadow.execution.host.executor import open_host

pytestmark = pytest.mark.anyio

LIMITS = (0, 1, 2, 7, 1000, 65_535, 65_536, 10**9)


@pytest.mark.parametrize(
    ("line", "log_limit_bytes"),
    [("true", 1 << 20), ("printf 0123456; printf 789 >&2", 1 << 20), ("seq 100000", 1 << 20), ("seq 100000", 1 << 16)],
)
async def test_an_excerpt_is_the_first_and_the_last_half(tmp_path: Path, line: str, log_limit_bytes: int) -> None:
    (tmp_path / "root").mkdir()
    async with open_host(tmp_path / "root", tmp_path / "state") as host:
        spec = CommandSpec(argv=shell(line), log_limit_bytes=log_limit_bytes)
        whole = await host.run(spec, output_limit_bytes=10**9)
        command = whole.command
        content = b"".join(o.data if isinstance(o, Output) else bytes(o.end - o.start) for o in whole.output)
        for limit in LIMITS:
            result = await read_excerpt(host, command, limit_bytes=limit)
            position = 0
            for item in result.output:
                assert (item.start if isinstance(item, Gap) else item.offset) == position
                assert isinstance(item, Gap) or item.data == content[position : item.end]
                position = item.end
            assert position == command.output_end
            kept = sum(len(item.data) for item in result.output if isinstance(item, Output))
            assert kept == min(limit, command.output_end - command.output_start)
