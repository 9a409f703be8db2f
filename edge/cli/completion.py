"""``edge completion``: print what makes a shell complete Edge's commands and options.

In: the shell's name. Out: a script on stdout. Must not: change any file of the user's.
"""

import click
from click.shell_completion import get_completion_class

from edge.cli.examples import examples

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog=examples(
        "edge completion bash >> ~/.bashrc",
        "edge completion zsh >> ~/.zshrc",
        "edge completion fish > ~/.config/fish/completions/edge.fish",
    )
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script for bash, zsh or fish."""
    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"this version of click cannot complete for {shell}")
    click.echo(script(context.find_root().command, {}, "edge", "_EDGE_COMPLETE").source())
