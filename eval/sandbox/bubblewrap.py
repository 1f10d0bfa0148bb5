"""A sandbox like ours made by bubblewrap, which may be allowed where an interpreter is not."""

from eval.sandbox.root import DEVICES, Visible


def wrapped(program: str, command: list[str], shown: Visible, code: str, disk_bytes: int) -> list[str]:
    """The command inside a sandbox in which it is process 1.

    Args:
        program: path of `bwrap`.
        command: to run.
        shown: what it sees, read-only.
        code: the folder that it is itself read from, which is shown as well.
        disk_bytes: size of /tmp.
    """
    words = [program, "--unshare-all", "--as-pid-1", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    words += ["--size", str(disk_bytes), "--perms", "1777", "--tmpfs", "/tmp", "--size", "65536", "--tmpfs", "/dev"]
    words += ["--proc", "/proc", "--chdir", "/tmp"]
    for path in DEVICES:
        words += ["--dev-bind-try", path, path]
    for path in (*shown["binds"], code):
        words += ["--ro-bind-try", path, path]
    for target, path in shown["links"]:
        words += ["--symlink", target, path]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/", "--", *command]
