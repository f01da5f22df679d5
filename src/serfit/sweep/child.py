"""`python -m serfit.sweep.child PID COMMAND...` becomes COMMAND, which dies when process PID does.

Said in the child itself, between fork and exec of `subprocess`, the same isn't safe where the parent has threads.
"""

import os
import sys
from collections.abc import Sequence

from serfit.system.interrupt import KILL, die_with_parent


def dying_with_parent(command: Sequence[str]) -> list[str]:
    """A command whose process is killed when this one ends, however it ends. On Linux; elsewhere the command itself."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-m", __name__, str(os.getpid()), *command]


if __name__ == "__main__":
    die_with_parent(KILL, int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
