"""The command line: ``edge serve`` and all that belongs to it.

In: arguments. Out: one command's module, run. Must not: import what the named command does not need.
"""

import difflib

import click

from edge import __version__
from edge.cli.examples import examples


class _Lazy(click.Group):
    """Imports a command's module only when that command is named."""

    _modules = (
        "serve", "init", "check", "reload", "upgrade", "health", "keys", "usage", "store", "service", "demo", "bench",
        "completion",
    )  # fmt: skip

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """See click."""
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """See click."""
        if cmd_name not in self._modules:
            return None
        module = __import__(f"edge.cli.{cmd_name}", fromlist=[cmd_name])
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, and name the nearest command where there is none of this name."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            meant = difflib.get_close_matches(args[0], self._modules, n=1)
            hint = f" Did you mean {meant[0]!r}?" if meant else " edge --help lists them all."
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


_HELP = f"""{examples("edge serve", "edge COMMAND --help")}

Documentation: docs/ in the source, from docs/quickstart.md on."""


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_HELP,
)
@click.version_option(__version__, prog_name="edge")
def main() -> None:
    """A drop-in OpenAI-compatible endpoint whose token streams can be trusted, beside any model server."""
