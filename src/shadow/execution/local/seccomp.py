"""The sandbox's system call filter: what is refused and why, assembled to classic BPF. Pure.

The filter is a list of refusals, not of permissions: builds, tests, debuggers and language runtimes must work, and what
they call changes from release to release. The walls are the namespaces, the lack of every capability and the leased uid;
the filter takes away kernel code that has no use in here and that attacks on those walls went through.

Refusals answer ``EPERM``, or ``ENOSYS`` where programs know an older way that is allowed. Foreign call tables (32-bit and
x32 programs on x86-64) answer ``ENOSYS`` to everything: a list that is written for one table must not be passed by another.
"""

import errno
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shadow.core.errors import Unsupported

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """System calls that are refused for one reason. Numbers: (x86-64, arm64), ``None`` where the table lacks the call."""

    reason: str
    error: int
    calls: Mapping[str, tuple[int | None, int | None]]


REFUSALS: Sequence[Refusal] = (
    Refusal(
        reason="Mounts and roots: the workspace's view of files is fixed.",
        error=errno.EPERM,
        calls={
            "mount": (165, 40),
            "umount2": (166, 39),
            "pivot_root": (155, 41),
            "chroot": (161, 51),
            "move_mount": (429, 429),
            "mount_setattr": (442, 442),
        },
    ),
    Refusal(
        reason="The newer way to mount; programs fall back to mount, which is refused above.",
        error=errno.ENOSYS,
        calls={
            "open_tree": (428, 428),
            "open_tree_attr": (467, 467),
            "fsopen": (430, 430),
            "fsconfig": (431, 431),
            "fsmount": (432, 432),
            "fspick": (433, 433),
        },
    ),
    Refusal(
        reason="Entering other namespaces. New ones: the flags of clone and unshare are checked apart.",
        error=errno.EPERM,
        calls={"setns": (308, 268)},
    ),
    Refusal(
        reason="Its flags lie in memory, where a filter cannot read them; the C library falls back to clone.",
        error=errno.ENOSYS,
        calls={"clone3": (435, 435)},
    ),
    Refusal(
        reason="Kernel keyrings are not divided by namespaces: the keys of the service's session must stay out of reach.",
        error=errno.EPERM,
        calls={"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
    ),
    Refusal(
        reason="Programs in the kernel, its performance counters, and page faults served by user code: means of many attacks.",
        error=errno.EPERM,
        calls={"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282)},
    ),
    Refusal(
        reason="io_uring does its work past this filter; libraries fall back to ordinary calls.",
        error=errno.ENOSYS,
        calls={"io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427)},
    ),
    Refusal(
        reason="A file by its handle, past every directory on the way to it.",
        error=errno.EPERM,
        calls={"open_by_handle_at": (304, 265)},
    ),
    Refusal(
        reason="The machine: modules, other kernels, swap, accounting, quotas, clocks, ports, its log and its power switch.",
        error=errno.EPERM,
        calls={
            "create_module": (174, None),
            "init_module": (175, 105),
            "finit_module": (313, 273),
            "delete_module": (176, 106),
            "get_kernel_syms": (177, None),
            "query_module": (178, None),
            "kexec_load": (246, 104),
            "kexec_file_load": (320, 294),
            "reboot": (169, 142),
            "swapon": (167, 224),
            "swapoff": (168, 225),
            "acct": (163, 89),
            "quotactl": (179, 60),
            "quotactl_fd": (443, 443),
            "settimeofday": (164, 170),
            "clock_settime": (227, 112),
            "clock_adjtime": (305, 266),
            "adjtimex": (159, 171),
            "sethostname": (170, 161),
            "setdomainname": (171, 162),
            "iopl": (172, None),
            "ioperm": (173, None),
            "syslog": (103, 116),
            "vhangup": (153, 58),
        },
    ),
    Refusal(
        reason="Relics that nothing calls any more.",
        error=errno.ENOSYS,
        calls={
            "uselib": (134, None),
            "ustat": (136, None),
            "sysfs": (139, None),
            "_sysctl": (156, None),
            "nfsservctl": (180, 42),
            "lookup_dcookie": (212, 18),
            "vserver": (236, None),
        },
    ),
)

# Calls whose arguments decide.
_CLONE = (56, 220)
_UNSHARE = (272, 97)
_SOCKET = (41, 198)
_SOCKETPAIR = (53, 199)
_IOCTL = (16, 29)

CLONE_NEW_FLAGS = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
"""mount, cgroup, uts, ipc, user, pid, net"""
CLONE_NEWTIME = 0x00000080
"""Only ``unshare`` takes it: in ``clone`` these bits are the signal sent at the end."""
ALLOWED_SOCKET_FAMILIES = (1, 2, 10, 16)
"""unix, inet, inet6, netlink. Not vsock above all: no namespace divides it, and its other end is the hypervisor."""
REFUSED_IOCTLS = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: typing into a terminal on behalf of its user."""

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]. Both tables are little-endian here.
_NR, _ARCH = 0, 4
_RET_ALLOW = 0x7FFF0000
_RET_ERRNO = 0x00050000
_LD_W_ABS, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06

Instruction = tuple[int, int, int, int]


def _argument(index: int) -> int:
    """Offset of the low half of an argument. The kernel reads flags, families and ioctl numbers as 32 bits too."""
    return 16 + 8 * index


def _load(offset: int) -> Instruction:
    return (_LD_W_ABS, 0, 0, offset)


def _refuse(error: int) -> Instruction:
    return (_RET, 0, 0, _RET_ERRNO | error)


_ALLOW: Instruction = (_RET, 0, 0, _RET_ALLOW)


def _when(number: int, body: Sequence[Instruction]) -> list[Instruction]:
    """``body`` for one system call. It must end with a return: what was loaded before is lost."""
    return [(_JEQ, 0, len(body), number), *body]


def _refused_flags(mask: int) -> list[Instruction]:
    return [_load(_argument(0)), (_JSET, 0, 1, mask), _refuse(errno.EPERM), _ALLOW]


def assemble(machine: str) -> bytes:
    """The filter as an array of ``struct sock_filter``. Raises: Unsupported: for a machine whose table is not listed."""
    if machine not in _AUDIT_ARCH:
        raise Unsupported(
            f"The sandbox's system call filter is not written for {machine} machines.",
            mend="Use an x86_64 or aarch64 machine, or ask for isolation 'none' by name, which is no wall at all.",
            details={"capability": "sandbox"},
        )
    column = 0 if machine == "x86_64" else 1
    code: list[Instruction] = [_load(_ARCH), (_JEQ, 1, 0, _AUDIT_ARCH[machine]), _refuse(errno.ENOSYS), _load(_NR)]
    if machine == "x86_64":
        code += [(_JGE, 0, 1, _X32_BIT), _refuse(errno.ENOSYS)]
    for refusal in REFUSALS:
        for numbers in refusal.calls.values():
            number = numbers[column]
            if number is not None:
                code += _when(number, [_refuse(refusal.error)])
    code += _when(_CLONE[column], _refused_flags(CLONE_NEW_FLAGS))
    code += _when(_UNSHARE[column], _refused_flags(CLONE_NEW_FLAGS | CLONE_NEWTIME))
    for call in (_SOCKET, _SOCKETPAIR):
        families = [(_JEQ, len(ALLOWED_SOCKET_FAMILIES) - i, 0, f) for i, f in enumerate(ALLOWED_SOCKET_FAMILIES)]
        body = [_load(_argument(0)), *families, _refuse(errno.EAFNOSUPPORT), _ALLOW]
        code += _when(call[column], body)
    ioctls = [(_JEQ, len(REFUSED_IOCTLS) - i, 0, command) for i, command in enumerate(REFUSED_IOCTLS)]
    code += _when(_IOCTL[column], [_load(_argument(1)), *ioctls, _ALLOW, _refuse(errno.EPERM)])
    code.append(_ALLOW)
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
