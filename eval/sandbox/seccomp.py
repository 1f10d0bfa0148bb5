"""The system calls that a program is refused, whatever its rights: seccomp's classic BPF, without a library.

Namespaces isolate what they know of. This closes what they do not: sockets of the virtual machine's host (AF_VSOCK) and
other families beside UNIX and IP, the keyring, memory outside of what is counted (System V, memfd), io_uring, tracing,
and the making of further namespaces, in which a program would have rights again.
"""

import ctypes
import errno
import os

from eval.sandbox import linux

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; both machines are little-endian
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_NEWEST = 462  # mseal: calls that came later than this list have not been judged, and do not exist inside

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_SOCKET = {"x86_64": 41, "aarch64": 198}
_PRLIMIT = {"x86_64": 302, "aarch64": 261}
_CLONE3 = 435
_SAME_EVERYWHERE = {
    "pidfd_getfd": 438,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "mount_setattr": 442,
    "memfd_secret": 447,
}
_REFUSED = {  # name: x86_64, aarch64
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "memfd_create": (319, 279),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "personality": (135, 92),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "move_pages": (279, 239),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
}
MACHINES = tuple(_AUDIT)
_NAMESPACES = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWCGROUP
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUSER
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
)


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


_Line = tuple[int, int, int, int]


def _return(value: int) -> _Line:
    return (_RETURN, 0, 0, value)


def _refuse(number: int, error: int) -> list[_Line]:
    return [(_EQUAL, 0, 1, number), _return(_ERRNO | error)]


def _when(number: int, lines: list[_Line]) -> list[_Line]:
    """`lines`, which end in a return, for one system call."""
    return [(_EQUAL, 0, len(lines), number), *lines]


def instructions(machine: str) -> list[_Line]:
    """The filter of a machine (as in os.uname): code, jump if true, jump if false, operand."""
    column = MACHINES.index(machine)
    families = (_AF_UNIX, _AF_INET, _AF_INET6)
    lines: list[_Line] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _AUDIT[machine]),
        _return(_KILL_PROCESS),  # the 32-bit calls of x86 have other numbers
        (_LOAD, 0, 0, _NUMBER),
    ]
    for numbers in _REFUSED.values():
        lines += _refuse(numbers[column], errno.EPERM)
    for number in _SAME_EVERYWHERE.values():
        lines += _refuse(number, errno.EPERM)
    lines += _refuse(_CLONE3, errno.ENOSYS)  # its flags lie in memory, where no filter sees them; libc then takes clone
    lines += [(_AT_LEAST, 0, 1, _NEWEST + 1), _return(_ERRNO | errno.ENOSYS)]  # x32 calls of x86_64 as well
    argument: _Line = (_LOAD, 0, 0, _FIRST_ARGUMENT)
    refused = _return(_ERRNO | errno.EPERM)
    lines += _when(_CLONE[machine], [argument, (_ANY_BIT, 0, 1, _NAMESPACES), refused, _return(_ALLOW)])
    lines += _when(_PRLIMIT[machine], [argument, (_EQUAL, 1, 0, 0), refused, _return(_ALLOW)])  # of others
    known = [(_EQUAL, len(families) - i, 0, family) for i, family in enumerate(families)]
    lines += _when(_SOCKET[machine], [argument, *known, _return(_ERRNO | errno.EAFNOSUPPORT), _return(_ALLOW)])
    return [*lines, _return(_ALLOW)]


def install() -> None:
    """Filter this process and all it will start, for good. Needs no_new_privileges."""
    lines = instructions(os.uname().machine)
    array = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), array)
    linux.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program))
