"""``shadow doctor``: what this host can do, each lack with its mend, and whether the executor keeps its contract here."""

import sys
import time
from dataclasses import asdict

from shadow.bootstrap import make_manager, start_logging
from shadow.cli.outcome import CANNOT_HERE, DONE, FAILED, print_json, wants_colour
from shadow.cli.probes import PROBES
from shadow.cli.rows import Row, Verdict, lack, ok, warn
from shadow.core.commands import CommandSpec
from shadow.core.errors import ShadowError
from shadow.core.workspaces import Isolation, Mode, WorkspaceSpec
from shadow.execution.interface import WorkspaceManager
from shadow.settings import Settings, load_settings
from shadow.terminal.neutral import printable
from shadow.testing.runner import Outcome, Report, run_checks
from shadow.testing.runner import Verdict as CheckVerdict

_COLOURS = {Verdict.OK: "32", Verdict.WARN: "33", Verdict.LACK: "31"}


async def examine(*, as_json: bool, quick: bool) -> int:
    settings = load_settings()
    start_logging(settings)
    rows: list[Row] = []

    def tell(row: Row) -> None:
        rows.append(row)
        if not as_json:
            _print_row(row)

    for probe in PROBES:
        tell(await probe(settings))
    manager: WorkspaceManager | None = None
    if not any(row.essential for row in rows):
        try:
            manager = make_manager(settings)
            tell(await _launch(settings, manager))
        except ShadowError as error:
            tell(_cannot_launch(settings, error))
    able = not any(row.essential for row in rows)
    report = await _check_contract(manager, as_json=as_json) if manager and able and not quick else None
    if as_json:
        print_json({"able": able, "rows": [asdict(row) for row in rows], "contract": _document(report)})
    else:
        _print_verdict(able, report)
    if not able:
        return CANNOT_HERE
    return DONE if report is None or report.passed else FAILED


async def _launch(settings: Settings, manager: WorkspaceManager) -> Row:
    """Really make a workspace, run something there, and remove it."""
    began = time.monotonic()
    async with manager.open(WorkspaceSpec(name="doctor")) as executor:
        result = await executor.run(CommandSpec(argv=("true",), timeout_s=20), wait_s=30)
    took_ms = (time.monotonic() - began) * 1000
    if result.exit_code != 0:
        return lack(_launch_name(settings), f"`true` ended with {result.ending}", essential=True)
    found = f"a workspace ran a command and was removed, in {took_ms:.0f} ms"
    if settings.isolation is Isolation.NONE:
        return warn(_launch_name(settings), f"{found}; isolation none is no wall", "Unset SHADOW_ISOLATION.")
    return ok(_launch_name(settings), found)


def _launch_name(settings: Settings) -> str:
    if settings.mode is not Mode.LOCAL:
        return settings.mode.value
    return "sandbox" if settings.isolation is Isolation.SANDBOX else f"isolation {settings.isolation.value}"


def _cannot_launch(settings: Settings, error: ShadowError) -> Row:
    return lack(_launch_name(settings), error.message, error.mend, essential=True)


async def _check_contract(manager: WorkspaceManager, *, as_json: bool) -> Report:
    live = sys.stderr.isatty() and not as_json
    done = 0

    def tell(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if live:
            print(f"\r\x1b[K{done} checks: {printable(outcome.name)}", end="", file=sys.stderr, flush=True)

    if not as_json:
        print("\nChecking the contract of the executor in throwaway workspaces …")
    report = await run_checks(lambda: manager.open(WorkspaceSpec(name="doctor")), told=tell)
    if live:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return report


def _print_row(row: Row) -> None:
    verdict = f"{row.verdict.value:<4}"
    if wants_colour(sys.stdout.isatty()):
        verdict = f"\x1b[{_COLOURS[row.verdict]}m{verdict}\x1b[0m"
    print(f"{verdict}  {row.name:<16} {printable(row.found)}")
    if row.mend:
        print(f"{'':24}→ {printable(row.mend)}")


def _print_verdict(able: bool, report: Report | None) -> None:
    if report is not None:
        for outcome in report.outcomes:
            if outcome.verdict is not CheckVerdict.PASSED:
                print(f"{outcome.verdict.value:<8} {outcome.name}: {printable(outcome.reason or outcome.rule)}")
        counts = ", ".join(f"{report.count(verdict)} {verdict.value}" for verdict in CheckVerdict)
        print(f"Contract: {counts}.")
    print()
    print("This host can run workspaces." if able else "This host cannot run workspaces until the lacks are mended.")


def _document(report: Report | None) -> dict[str, object] | None:
    if report is None:
        return None
    counts: dict[str, object] = {verdict.value: report.count(verdict) for verdict in CheckVerdict}
    return counts | {
        "not_passed": [asdict(o) for o in report.outcomes if o.verdict is not CheckVerdict.PASSED],
    }
