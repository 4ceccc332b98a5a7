"""The system call filter's program, decided step by step as the kernel would: what is refused, on which machine, and how."""

import errno
import re
import struct
from pathlib import Path

import pytest

from shadow.core.errors import Unsupported
from shadow.execution.local.seccomp import CLONE_NEW_FLAGS, CLONE_NEWTIME, REFUSALS, assemble

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW = 0x7FFF0000
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def decide(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """What the program returns for one call."""
    code = list(struct.iter_unpack("<HBBI", assemble(machine)))
    data = struct.pack("<IIQ6Q", number, arch or ARCH[machine], 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    at = loaded = 0
    while True:
        operation, when_true, when_false, k = code[at]
        at += 1
        if operation == 0x20:
            loaded = struct.unpack_from("<I", data, k)[0]
        elif operation == 0x06:
            return k
        else:
            holds = {0x15: loaded == k, 0x35: loaded >= k, 0x45: bool(loaded & k)}[operation]
            at += when_true if holds else when_false


def refused(error: int) -> int:
    return 0x00050000 | error


@pytest.mark.parametrize("machine", ARCH)
def test_every_listed_call_is_refused_as_it_says(machine: str) -> None:
    for refusal in REFUSALS:
        for name, numbers in refusal.calls.items():
            number = numbers[list(ARCH).index(machine)]
            if number is not None:
                assert decide(machine, number) == refused(refusal.error), name


@pytest.mark.parametrize("machine", ARCH)
def test_ordinary_calls_are_allowed(machine: str) -> None:
    listed = {n[list(ARCH).index(machine)] for refusal in REFUSALS for n in refusal.calls.values()}
    checked = {"x86_64": {56, 272, 41, 53, 16}, "aarch64": {220, 97, 198, 199, 29}}[machine]
    for number in set(range(470)) - listed - checked:
        assert decide(machine, number) == ALLOW, number


@pytest.mark.parametrize(("machine", "clone", "unshare"), [("x86_64", 56, 272), ("aarch64", 220, 97)])
def test_new_namespaces_are_refused_and_threads_are_not(machine: str, clone: int, unshare: int) -> None:
    for bit in (1 << i for i in range(32)):
        expected = refused(errno.EPERM) if bit & CLONE_NEW_FLAGS else ALLOW
        assert decide(machine, clone, bit | 17) == expected, hex(bit)
        if bit != CLONE_NEWTIME:
            assert decide(machine, unshare, bit) == expected, hex(bit)
    assert decide(machine, unshare, CLONE_NEWTIME) == refused(errno.EPERM)


@pytest.mark.parametrize(("machine", "call"), [("x86_64", 41), ("x86_64", 53), ("aarch64", 198), ("aarch64", 199)])
def test_only_known_socket_families_are_allowed(machine: str, call: int) -> None:
    allowed = {family for family in range(64) if decide(machine, call, family) == ALLOW}
    assert allowed == {1, 2, 10, 16}
    assert decide(machine, call, 40) == refused(errno.EAFNOSUPPORT)


@pytest.mark.parametrize(("machine", "ioctl"), [("x86_64", 16), ("aarch64", 29)])
def test_typing_into_a_terminal_is_refused(machine: str, ioctl: int) -> None:
    assert decide(machine, ioctl, 0, 0x5412) == refused(errno.EPERM)
    assert decide(machine, ioctl, 0, 0x541C) == refused(errno.EPERM)
    # The kernel reads 32 bits of the number: so must the filter.
    assert decide(machine, ioctl, 0, 0x1_0000_5412) == refused(errno.EPERM)
    assert decide(machine, ioctl, 0, 0x5413) == ALLOW


def test_foreign_call_tables_are_refused_as_a_whole() -> None:
    for number in (0, 1, 39, 165):
        assert decide("x86_64", number, arch=0x40000003) == refused(errno.ENOSYS)  # 32-bit
        assert decide("x86_64", number | 0x40000000) == refused(errno.ENOSYS)  # x32
        assert decide("aarch64", number, arch=0x40000028) == refused(errno.ENOSYS)


def test_an_unknown_machine_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="riscv64"):
        assemble("riscv64")


@pytest.mark.parametrize("machine", ARCH)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    text = header.read_text()
    known = {name: int(n) for name, n in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    for refusal in REFUSALS:
        for name, numbers in refusal.calls.items():
            number = numbers[list(ARCH).index(machine)]
            if name in known:
                assert number == known[name], name
            elif number is not None:
                assert number > max(known.values()), f"{name} is newer than the headers"
