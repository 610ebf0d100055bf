"""Runs one command that dies with its owner.

Started as a script of its own (`python -I -S leash.py OWNER SIGNAL UID GID COMMAND...`), because
what it sets must be set in the new process, after its user was changed and before the command runs.
A SIGNAL of 0 lets the command outlive its owner; a UID of -1 keeps the user.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Change the user, tie this process to its owner, and become the command."""
    owner, death_signal, uid, gid = map(int, arguments[:4])
    command = arguments[4:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if death_signal:
        # After setuid, which clears it; kept over exec.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != owner:
            sys.exit("the owner ended before its command began")
    os.execv(command[0], command)  # noqa: S606 - becoming the command is the purpose


if __name__ == "__main__":
    main(sys.argv[1:])
