r"""The end of a command's help: what to type, and where the documentation is.

In: command lines. Out: an epilog for click. Must not: be wrapped, which ``\b`` prevents.
"""


def examples(*lines: str) -> str:
    """An epilog that shows these command lines, each on a line of its own."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
