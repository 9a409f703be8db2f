"""Tables of what a command has found.

In: rows of texts. Out: lines on stdout. Must not: cut a value, or take one for markup.
"""

import sys
from collections.abc import Sequence

_PLAIN_WIDTH = 100_000  # so that nothing is cut or wrapped where no terminal has a width

Row = tuple[str, ...]


def print_table(head: Row, rows: Sequence[Row]) -> None:
    """A framed table that fits the terminal; elsewhere bare columns of any width, for scripts and logs."""
    from rich import box  # noqa: PLC0415 - rich costs a command that does not use it 50 ms and 5 MB
    from rich.console import Console  # noqa: PLC0415 - likewise
    from rich.table import Table  # noqa: PLC0415 - likewise
    from rich.text import Text  # noqa: PLC0415 - likewise

    if sys.stdout.isatty():
        console, frame = Console(), box.ROUNDED
    else:  # no colours, whatever FORCE_COLOR says
        console, frame = Console(width=_PLAIN_WIDTH, force_terminal=False, color_system=None), None
    table = Table(box=frame, pad_edge=frame is not None)
    for title in head:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as it is: a name may look like markup
    console.print(table)
