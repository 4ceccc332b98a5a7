"""Fails where a setting exists that no code reads."""

import ast
import sys
from pathlib import Path

from shadow.settings import Settings

SOURCE = Path(__file__).parents[1] / "src" / "shadow"


def names_read(source: Path) -> set[str]:
    """The attributes that are read off something called ``settings``, everywhere but where settings are defined."""
    names: set[str] = set()
    for path in source.rglob("*.py"):
        if path == source / "settings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and _is_settings(node.value):
                names.add(node.attr)
    return names


def _is_settings(node: ast.expr) -> bool:
    match node:
        case ast.Name(id="settings" | "_settings") | ast.Attribute(attr="settings" | "_settings"):
            return True
        case ast.Call(func=ast.Name(id="load_settings")):
            return True
        case _:
            return False


def main() -> int:
    unread = sorted(set(Settings.model_fields) - names_read(SOURCE))
    for name in unread:
        print(f"settings.py: nobody reads {name!r}", file=sys.stderr)
    return 1 if unread else 0


if __name__ == "__main__":
    sys.exit(main())
