"""Run benchmarks: ``python -m benchmarks NAME [--json]``; the last line is one JSON object.

``all`` runs every one, each followed by its line; its last line holds all of them. Nothing else should run meanwhile.
"""

import argparse
import asyncio
import importlib
import json
import sys

from benchmarks.result import Result

NAMES = (
    "exec",
    "create",
    "files",
    "stream",
    "terminal",
    "grep",
    "cli",
    "sidecar",
    "limits",
    "egress",
    "repositories",
    "checkpoint",
    "agent",
    "events",
    "streaming",
    "engine",
    "server",
)


def run(name: str) -> Result:
    print(f"{name}: measuring …", file=sys.stderr, flush=True)
    return asyncio.run(importlib.import_module(f"benchmarks.{name}").measure())


def show(result: Result) -> None:
    mark = "reached" if result.reached else "missed"
    print(f"{result.name}: {result.ours:.3g} against {result.floor:.3g} ({result.unit})")
    print(f"  ratio {result.ratio:.2f}, {result.better} is better; the floor is {result.floor_is}")
    print(f"  goal: {result.goal}: {mark}")
    for name, value in result.details.items():
        print(f"  {name} = {value:.4g}" if isinstance(value, float) else f"  {name} = {value}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=(*NAMES, "all"))
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    arguments = parser.parse_args()
    results: list[Result] = []
    for name in NAMES if arguments.name == "all" else (arguments.name,):
        results.append(run(name))
        if not arguments.json:
            show(results[-1])
        if arguments.name != "all" or not arguments.json:
            print(json.dumps(results[-1].to_json()), flush=True)
    if arguments.name == "all":
        print(json.dumps({"benchmarks": [result.to_json() for result in results]}))


main()
