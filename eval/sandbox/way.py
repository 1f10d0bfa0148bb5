"""The ways in which Linux lets a program be isolated."""

from enum import StrEnum


class Way(StrEnum):
    """In the order in which they are tried."""

    root = "root"
    """As root (CAP_SYS_ADMIN): new namespaces, in which the program is a user of its own without rights."""
    user = "user"
    """As anybody (root becomes nobody first): the same in a user namespace, where the kernel allows these to all."""
    bubblewrap = "bubblewrap"
    """`bwrap`, which some distributions allow what they refuse to others."""
