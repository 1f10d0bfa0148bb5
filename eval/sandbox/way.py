"""The ways in which Linux lets a program be isolated."""

from enum import StrEnum


class Way(StrEnum):
    """In the order in which they are tried."""

    root = "root"
    """Root (CAP_SYS_ADMIN) makes new namespaces, in which the program is a user of its own without rights."""
    user = "user"
    """Anybody (root becomes nobody first) makes them in a user namespace, where the kernel allows these to all."""
    bubblewrap = "bubblewrap"
    """`bwrap`, which some distributions allow what they refuse to others."""
