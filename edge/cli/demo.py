"""``edge demo``: the command; what it does is in ``edge.cli.demo_run``.

In: the options. Out: the exit status. Must not: import what only the demo needs before it runs, since ``edge serve``
imports this module too.
"""

import sys

import click


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Where Edge listens. Without it 11435, or a free port if that is taken.",
)
@click.option("--once", is_flag=True, help="End after the first answer.")
def demo(port: int | None, *, once: bool) -> None:
    """Stream a real model's answer through Edge; nothing needs to be configured."""
    from edge.cli.demo_run import main  # noqa: PLC0415 - rich, and the demo's own parts

    sys.exit(main(port, once=once))
