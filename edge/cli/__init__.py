"""The command line: ``edge serve`` and all that belongs to it.

In: arguments. Out: one command's module, run. Must not: import what the named command does not need.
"""

import click

from edge import __version__


class _Lazy(click.Group):
    """Imports a command's module only when that command is named."""

    _modules = (
        "serve", "check", "reload", "upgrade", "health", "keys", "usage", "store", "service", "demo", "bench",
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


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge")
def main() -> None:
    """A drop-in OpenAI-compatible endpoint whose token streams can be trusted, beside any model server."""
