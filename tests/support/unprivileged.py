"""A process that may not do everything, also where the tests are root's."""

import os
import shutil
from pathlib import Path

NOBODY = 65534
# Still root, so that it can read the interpreter, but as any other user it may use only what is its own.
PLAIN = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
CAN_BE_PLAIN = os.geteuid() != 0 or shutil.which("setpriv") is not None


def take_away(path: Path, mode: int) -> None:
    """Make it somebody else's, with this mode for others; for a test that is not root's, the mode is for the owner."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o700 | mode)
    else:
        path.chmod(mode << 6)
