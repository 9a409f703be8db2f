"""``edge bench``: the command; what it does is in ``edge.cli.bench_run``.

In: the options. Out: the exit status: 0 all streams were whole, 1 some were not, 2 nothing could be asked.
Must not: import what only the benchmark needs before it runs.
"""

import sys

import click


@click.command()
@click.option("--url", required=True, help="Any OpenAI-compatible endpoint: http://HOST:PORT, with or without /v1.")
@click.option("--model", help="Whom to ask; without it the first of /v1/models.")
@click.option("--streams", type=click.IntRange(1, 10_000), default=8, show_default=True, help="Streams at once.")
@click.option("--tokens", type=click.IntRange(1), default=128, show_default=True, help="max_tokens of each stream.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="How often, one after another.")
@click.option("--prompt", default="Tell a long story about a lighthouse.", show_default=True, help="What is asked.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(1), default=300.0, show_default=True, help="Seconds a round."
)
@click.option(
    "--api-key",
    envvar=["EDGE_API_KEY", "EDGE_BENCH_KEY"],
    default="",
    help="Sent as Bearer; better given as EDGE_API_KEY.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(
    *,
    url: str,
    model: str | None,
    streams: int,
    tokens: int,
    rounds: int,
    prompt: str,
    timeout_s: float,
    api_key: str,
    as_json: bool,
) -> None:
    """Measure streamed chat completions: time to first token, gaps between tokens, tokens per second, errors."""
    from edge.cli.bench_load import Target  # noqa: PLC0415 - only this command needs it
    from edge.cli.bench_run import Plan, main  # noqa: PLC0415 - likewise

    try:
        target = Target.parse(url, api_key)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None
    sys.exit(main(target, Plan(url, model, streams, tokens, rounds, prompt, timeout_s), as_json=as_json))
