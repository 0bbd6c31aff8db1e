"""Namespaces of a runner: no network but an empty one of its own, no System V objects of others, no rights outside."""

from __future__ import annotations

from workers.runner.kernel import unshare

CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x08000000, 0x10000000, 0x40000000
# A mount namespace would hide what Landlock refuses anyway; a process namespace takes hold only of children, and a
# runner has none.
APART = CLONE_NEWNET | CLONE_NEWIPC


class Namespaces:
    """Left in two moments, before a change of user and after it: each may be allowed where the other is not.

    Both need a process of one thread, so before numpy is imported. No user is mapped into the new user namespace: the
    process keeps its own user on files, shows as the overflow user (65534) to itself, and cannot become any other.
    """

    def __init__(self) -> None:
        self._apart = False

    def leave_privileged(self) -> None:
        """Leaves network and IPC with the rights of root, if this process has them; otherwise nothing."""
        try:
            unshare(APART)
        except OSError:
            return
        self._apart = True

    def leave_as_user(self) -> None:
        """Leaves all of them by way of a user namespace, which any user may have where the machine allows it.

        Raises OSError where network and IPC could be left in neither way.
        """
        try:
            unshare(CLONE_NEWUSER | (0 if self._apart else APART))
        except OSError:
            if not self._apart:
                raise
