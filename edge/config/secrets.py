"""References to secrets: ``${VAR}`` inside a string, and ``credential:NAME`` as a whole string.

In: values as they were written, and the environment. Out: the values with every reference replaced, once (what comes
in that way is never looked at again). Must not: put what a reference stands for into a message.
"""

import re
from collections.abc import Mapping
from pathlib import Path

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OPENING = re.compile(r"\$\{(?![A-Za-z_][A-Za-z0-9_]*\})")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_CREDENTIAL = "credential:"


class Resolver:
    """Replaces references.

    Attributes:
        used: The names of the variables that were referred to.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.used: set[str] = set()

    def resolve(self, value: object) -> tuple[object, list[str]]:
        """The value with its references replaced (in list items and table values too), and what could not be."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            items = [self.resolve(item) for item in value]
            return [item for item, _ in items], [fault for _, faults in items for fault in faults]
        if isinstance(value, dict):
            parts = {key: self.resolve(part) for key, part in value.items()}
            return {key: part for key, (part, _) in parts.items()}, [f for _, faults in parts.values() for f in faults]
        return value, []

    def _text(self, text: str) -> tuple[str, list[str]]:
        if text.startswith(_CREDENTIAL):
            return self._credential(text.removeprefix(_CREDENTIAL))
        names = _VARIABLE.findall(text)
        self.used.update(names)
        faults = [f"${{{name}}}: this variable is not set" for name in names if name not in self._environ]
        if _OPENING.search(text):
            faults.append("${ must be followed by a variable's name and }")
        return _VARIABLE.sub(lambda found: self._environ.get(found[1], ""), text), faults

    def _credential(self, name: str) -> tuple[str, list[str]]:
        if not _NAME.fullmatch(name):
            return "", ["a credential's name is made of A-Z a-z 0-9 . _ - only"]
        directory = self._environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            return "", [
                f"credential:{name}: CREDENTIALS_DIRECTORY is not set; the unit needs LoadCredential={name}:PATH"
            ]
        try:
            text = (Path(directory) / name).read_bytes().decode()
        except OSError as error:
            return "", [f"credential:{name}: {error.strerror} in CREDENTIALS_DIRECTORY"]
        except UnicodeDecodeError:
            return "", [f"credential:{name}: not UTF-8 text"]
        return text.removesuffix("\n"), []
