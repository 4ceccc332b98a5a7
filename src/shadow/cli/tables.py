"""Tables on stdout, for people."""

import sys
from collections.abc import Sequence

from shadow.cli.outcome import wants_colour
from shadow.terminal.neutral import printable


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else 500, no_color=not wants_colour(terminal))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(cell), overflow="ellipsis") for cell in row))
    console.print(table, highlight=False)
