"""The programs that the mock simulates: what setting a scene and looking at it takes, with the answers of coreutils."""

import hashlib
import re
import stat as stat_module
import time
from collections.abc import Awaitable, Callable, Mapping

from shadow.core.errors import NotFound, ShadowError
from shadow.core.files import FileKind
from shadow.execution.mock.plan import Program
from shadow.execution.mock.process import NotSimulated, Process
from shadow.execution.mock.tree import Directory, Link, Pipe, walk
from shadow.execution.path_text import decode_path, encode_path

_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\", "e": "\x1b"}
_DIRECTIVE = re.compile(r"%(?:%|(-?\d*)([sdb]))")
_FORMATS = {
    FileKind.FILE: stat_module.S_IFREG,
    FileKind.DIRECTORY: stat_module.S_IFDIR,
    FileKind.SYMLINK: stat_module.S_IFLNK,
    FileKind.OTHER: stat_module.S_IFIFO,
}
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _options(argv: tuple[str, ...], known: str) -> tuple[set[str], list[str]]:
    """Short options of ``known`` and what is none. Raises: NotSimulated."""
    given: set[str] = set()
    words = list(argv[1:])
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        if unknown := set(word[1:]) - set(known):
            raise NotSimulated(f"the option -{min(unknown)} of {argv[0]}")
        given |= set(word[1:])
    return given, words


async def _each(process: Process, names: list[str], what: Callable[[str], Awaitable[None]]) -> int:
    """``what`` for each, with a complaint for each that fails, as coreutils do it."""
    code = 0
    for name in names:
        try:
            await what(name)
        except ShadowError as error:
            reason = "No such file or directory" if isinstance(error, NotFound) else error.message.rstrip(".")
            await process.complain(f"{name}: {reason}")
            code = 1
    return code


async def true(_process: Process) -> int:
    return 0


async def false(_process: Process) -> int:
    return 1


async def echo(process: Process) -> int:
    words, end = process.argv[1:], b"\n"
    if words and words[0] == "-n":
        words, end = words[1:], b""
    await process.write(_bytes(" ".join(words)) + end)
    return 0


async def printf(process: Process) -> int:
    if len(process.argv) < 2:
        await process.complain("usage: printf FORMAT [ARGUMENT…]")
        return 2
    template, arguments = process.argv[1], list(process.argv[2:])
    takes = len([d for d in _DIRECTIVE.finditer(template) if d[0] != "%%"])
    written = _format(template, arguments)
    while takes and arguments:
        written += _format(template, arguments)
    await process.write(written)
    return 0


def _format(template: str, arguments: list[str]) -> bytes:
    """Once through the template; takes from ``arguments``."""
    pieces, position = bytearray(), 0
    for directive in _DIRECTIVE.finditer(template):
        pieces += _unescape(template[position : directive.start()])
        position = directive.end()
        if directive[0] == "%%":
            pieces += b"%"
            continue
        argument = arguments.pop(0) if arguments else ""
        shown = _unescape(argument) if directive[2] == "b" else _bytes(argument)
        if directive[2] == "d":
            shown = b"%d" % int(argument or 0)
        width = directive[1] or "0"
        fill = b"0" if width.startswith("0") and directive[2] == "d" else b" "
        pieces += shown.ljust(-int(width)) if width.startswith("-") else shown.rjust(int(width), fill)
    return bytes(pieces + _unescape(template[position:]))


def _unescape(text: str) -> bytes:
    pieces, position = bytearray(), 0
    for escape in _ESCAPE.finditer(text):
        pieces += _bytes(text[position : escape.start()])
        position = escape.end()
        if escape[3] is not None:
            pieces += _bytes(_ESCAPED.get(escape[3], escape[0]))
        else:
            pieces.append((int(escape[1], 16) if escape[1] else int(escape[2], 8)) & 0xFF)
    return bytes(pieces + _bytes(text[position:]))


async def cat(process: Process) -> int:
    _, names = _options(process.argv, "u")

    async def show(name: str) -> None:
        if name != "-":
            await process.write(process.files.open(process.path(name))[0])
            return
        while data := await process.read():
            await process.write(data)

    return await _each(process, names or ["-"], show)


async def ls(process: Process) -> int:
    given, names = _options(process.argv, "aA1l")

    async def show(name: str) -> None:
        path = process.path(name)
        if process.files.stat(path, follow=True).kind is not FileKind.DIRECTORY:
            await process.write(_bytes(name) + b"\n")
            return
        directory, _ = process.files.tree.directory(path)
        shown = sorted(map(encode_path, directory.entries))
        if "a" in given:
            shown = [b".", b"..", *shown]
        shown = [n for n in shown if given & {"a", "A"} or not n.startswith(b".")]
        long = "l" in given
        await process.write(b"".join(_long(process, path, n) + n + b"\n" if long else n + b"\n" for n in shown))

    return await _each(process, names or ["."], show)


def _long(process: Process, path: str, name: bytes) -> bytes:
    """What ``ls -l`` shows before a name."""
    found = process.files.stat(f"{path}/{decode_path(name)}", follow=False)
    changed = time.strftime("%b %e %H:%M", time.gmtime(found.modified_at))
    letters = stat_module.filemode(_FORMATS[found.kind] | found.mode)
    return f"{letters} 1 agent agent {found.size_bytes:>8} {changed} ".encode()


async def find(process: Process) -> int:
    """Only ``find DIRECTORY``: everything below it."""
    _, names = _options(process.argv, "")

    async def show(name: str) -> None:
        directory, _ = process.files.tree.directory(process.path(name))
        below = [f"{name}/{'/'.join(way)}" for way, _ in walk(directory)]
        await process.write(_bytes("".join(f"{path}\n" for path in [name, *below])))

    return await _each(process, names or ["."], show)


async def pwd(process: Process) -> int:
    await process.write(_bytes(process.directory) + b"\n")
    return 0


async def sleep(process: Process) -> int:
    total = 0.0
    for word in process.argv[1:]:
        number = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([smhd]?)|infinity", word)
        if number is None:
            await process.complain(f"invalid time interval ‘{word}’")
            return 1
        total += float(number[1]) * _UNITS[number[2]] if number[1] else 1e9
    await process.sleep(total)
    return 0


async def env(process: Process) -> int:
    given, names = _options(process.argv, "0")
    if names:
        raise NotSimulated("env with a program")
    end = "\0" if "0" in given else "\n"
    await process.write(_bytes("".join(f"{name}={value}{end}" for name, value in process.env.items())))
    return 0


async def printenv(process: Process) -> int:
    values = [process.env.get(name) for name in process.argv[1:]] or list(process.env.values())
    await process.write(_bytes("".join(f"{value}\n" for value in values if value is not None)))
    return 1 if None in values else 0


async def seq(process: Process) -> int:
    try:
        first, last = [1, *map(int, process.argv[1:])][-2:]
    except ValueError as error:
        raise NotSimulated("seq but of whole numbers, from FIRST to LAST") from error
    for start in range(first, last + 1, 10_000):
        await process.write(b"".join(b"%d\n" % n for n in range(start, min(start + 10_000, last + 1))))
    return 0


async def yes(process: Process) -> int:
    line = _bytes(" ".join(process.argv[1:]) or "y") + b"\n"
    while True:
        await process.write(line * (8192 // len(line) + 1))


async def mkdir(process: Process) -> int:
    given, names = _options(process.argv, "p")

    async def make(name: str) -> None:
        if "p" not in given:
            process.files.make_node(process.path(name), Directory(mode=0o755, modified_at=process.time.now()))
        else:
            process.files.make_directory(process.path(name), create_parents=True)

    return await _each(process, names, make)


async def mkfifo(process: Process) -> int:
    async def make(name: str) -> None:
        process.files.make_node(process.path(name), Pipe(mode=0o644, modified_at=process.time.now()))

    return await _each(process, list(process.argv[1:]), make)


async def ln(process: Process) -> int:
    given, names = _options(process.argv, "s")
    if "s" not in given or len(names) != 2:
        raise NotSimulated("ln but as ln -s TARGET NAME")

    async def make(name: str) -> None:
        process.files.make_node(process.path(name), Link(target=names[0], modified_at=process.time.now()))

    return await _each(process, names[1:], make)


async def readlink(process: Process) -> int:
    async def show(name: str) -> None:
        target = process.files.stat(process.path(name), follow=False).target
        await process.write(_bytes(target or "") + b"\n" * (target is not None))

    return await _each(process, list(process.argv[1:]), show)


async def touch(process: Process) -> int:
    """Also as ``touch -d @SECONDS NAME…``."""
    names, moment = list(process.argv[1:]), process.time.now()
    if names[:1] == ["-d"] and re.fullmatch(r"@\d+(\.\d+)?", "".join(names[1:2])):
        names, moment = names[2:], float(names[1][1:])
    if names and names[0].startswith("-"):
        raise NotSimulated(f"the option {names[0]} of touch")

    async def make(name: str) -> None:
        if process.files.tree.resolve(process.path(name)).found is None:
            process.files.write(process.path(name), b"", create_parents=False)
        process.files.tree.find(process.path(name))[0].modified_at = moment

    return await _each(process, names, make)


async def truncate(process: Process) -> int:
    if len(process.argv) < 4 or process.argv[1] != "-s" or not process.argv[2].isdecimal():
        raise NotSimulated("truncate but as truncate -s BYTES NAME")
    size = int(process.argv[2])

    async def cut(name: str) -> None:
        path = process.path(name)
        content = process.files.open(path)[0] if process.files.tree.resolve(path).found is not None else b""
        process.files.check_room(size)
        process.files.write(path, content[:size].ljust(size, b"\0"), create_parents=False)

    return await _each(process, list(process.argv[3:]), cut)


async def chmod(process: Process) -> int:
    if len(process.argv) < 3 or re.fullmatch(r"[0-7]{1,4}", process.argv[1]) is None:
        raise NotSimulated("chmod but with an octal mode")
    mode = int(process.argv[1], 8)

    async def change(name: str) -> None:
        process.files.tree.find(process.path(name))[0].mode = mode

    return await _each(process, list(process.argv[2:]), change)


async def rm(process: Process) -> int:
    given, names = _options(process.argv, "rRf")
    recursive = bool(given & {"r", "R"})

    async def remove(name: str) -> None:
        if process.files.tree.resolve(process.path(name), follow=False).found is not None or "f" not in given:
            process.files.delete(process.path(name), recursive=recursive)

    return await _each(process, names, remove)


async def rmdir(process: Process) -> int:
    async def remove(name: str) -> None:
        process.files.tree.directory(process.path(name))
        process.files.delete(process.path(name), recursive=False)

    return await _each(process, list(process.argv[1:]), remove)


async def stat(process: Process) -> int:
    """Only ``stat -c FORMAT NAME…`` with %a, %i, %s, %Y and %n."""
    if len(process.argv) < 4 or process.argv[1] != "-c" or re.search(r"%[^aisYn]", process.argv[2]):
        raise NotSimulated("stat but as stat -c FORMAT NAME, with %a, %i, %s, %Y and %n")

    async def show(name: str) -> None:
        found = process.files.stat(process.path(name), follow=False)
        number = id(
            process.files.tree.find(process.path(name), follow=False)[0]
        )  # another after each write, as an inode
        values = {"a": f"{found.mode:o}", "i": f"{number}", "s": f"{found.size_bytes}", "n": name}
        values["Y"] = f"{int(found.modified_at)}"
        await process.write(_bytes(re.sub("%([aisYn])", lambda m: values[m[1]], process.argv[2]) + "\n"))

    return await _each(process, list(process.argv[3:]), show)


async def mv(process: Process) -> int:
    _, names = _options(process.argv, "fT")
    if len(names) != 2:
        raise NotSimulated("mv but as mv SOURCE TARGET")

    async def move(name: str) -> None:
        process.files.move(process.path(name), process.path(names[1]), overwrite=True)

    return await _each(process, names[:1], move)


async def sha256sum(process: Process) -> int:
    async def show(name: str) -> None:
        digest = hashlib.sha256()
        if name != "-":
            digest.update(process.files.open(process.path(name))[0])
        else:
            while data := await process.read():
                digest.update(data)
        await process.write(_bytes(f"{digest.hexdigest()}  {name}\n"))

    return await _each(process, list(process.argv[1:]) or ["-"], show)


_SIMULATED = (
    *(true, false, echo, printf, cat, ls, find, pwd, sleep, env, printenv, seq, yes),
    *(mkdir, mkfifo, ln, readlink, touch, truncate, chmod, rm, rmdir, stat, mv, sha256sum),
)
PROGRAMS: Mapping[str, Program] = {program.__name__: program for program in _SIMULATED}
