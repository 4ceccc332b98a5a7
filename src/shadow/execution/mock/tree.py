"""A tree of files in memory, and how paths lead through it: nothing leads out of its root. No I/O.

The rules are those of the host's walker: links are resolved here, ``..`` goes back along the way that was come, an absolute
path counts where it begins with the root as commands see it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from shadow.core.errors import LimitExceeded, NotADirectory, NotFound, PathRefused
from shadow.core.files import FileKind, FileStat
from shadow.execution.path_text import decode_path, encode_path, show_path

ROOT = "/workspace"
MAX_NAME_BYTES = 255
MAX_LINKS = 40
MAX_STEPS = 16_384


@dataclass(slots=True)
class File:
    content: bytes
    mode: int
    modified_at: float


@dataclass(slots=True)
class Directory:
    mode: int
    modified_at: float
    entries: "dict[str, Node]" = field(default_factory=dict[str, "Node"])


@dataclass(slots=True)
class Link:
    target: str
    modified_at: float
    mode: int = 0o777


@dataclass(slots=True)
class Pipe:
    mode: int
    modified_at: float


Node = File | Directory | Link | Pipe


@dataclass(slots=True)
class Place:
    """What a path names: a name in a directory. Nothing need be there."""

    way: list[tuple[str, Directory]]
    """The directories from the root to where it lies, each with its name; some may still have to be made."""
    name: str
    found: Node | None
    names_directory: bool
    """Whether the path ended in a slash."""

    @property
    def parent(self) -> Directory:
        return self.way[-1][1]

    @property
    def is_root(self) -> bool:
        return self.name == "."

    @property
    def path(self) -> str:
        """From the root, with every link on the way resolved."""
        return "/".join([*(name for name, _ in self.way[1:]), self.name])


class Tree:
    """At most ``limit_bytes`` of content and ``limit_entries`` entries. ``now`` is told by who changes something."""

    def __init__(self, *, limit_bytes: int, limit_entries: int, now: float) -> None:
        self.root = Directory(mode=0o755, modified_at=now)
        self._limit_bytes = limit_bytes
        self._limit_entries = limit_entries
        self.size_bytes = 0
        self.entries = 0

    # Finding

    def resolve(self, path: str, *, follow: bool = True, create_parents: bool = False) -> Place:
        """The place that ``path`` names; a link in its last component is resolved too, with ``follow``. Changes nothing.

        Raises: PathRefused, NotFound (a directory on the way), NotADirectory.
        """
        raw = encode_path(path)
        place = _Walk(self.root, path, follow=follow, create_parents=create_parents).run(decode_path(raw))
        place.names_directory = raw.endswith((b"/", b"/."))
        if place.names_directory and place.found is not None and not isinstance(place.found, Directory | Link):
            raise NotADirectory(f"{show_path(path)} is not a directory.")
        return place

    def find(self, path: str, *, follow: bool = True) -> tuple[Node, Place]:
        """Raises: as ``resolve``, and NotFound."""
        place = self.resolve(path, follow=follow)
        if place.found is None:
            raise NotFound(f"{show_path(path)} is not there.")
        return place.found, place

    def directory(self, path: str) -> tuple[Directory, str]:
        """A directory, and its path with every link resolved. Raises: as ``find``, and NotADirectory."""
        node, place = self.find(path)
        if not isinstance(node, Directory):
            raise NotADirectory(f"{show_path(path)} is not a directory.")
        return node, place.path

    # Changing

    def put(self, place: Place, node: Node, *, now: float) -> None:
        """Lay ``node`` down at ``place``, over what is there; missing directories are made. Raises: LimitExceeded."""
        replaced = place.parent.entries.get(place.name)
        made = [i for i in range(1, len(place.way)) if place.way[i][0] not in place.way[i - 1][1].entries]
        self._account(
            _bytes_of(node) - (_bytes_of(replaced) if replaced is not None else 0), (replaced is None) + len(made)
        )
        for index in made:
            name, directory = place.way[index]
            place.way[index - 1][1].entries[name] = directory
        place.parent.entries[place.name] = node
        place.parent.modified_at = now

    def remove(self, place: Place, *, now: float) -> None:
        """Take away what is at ``place``, with all that is below it."""
        node = place.parent.entries.pop(place.name)
        below = list(walk(node)) if isinstance(node, Directory) else []
        self.size_bytes -= _bytes_of(node) + sum(_bytes_of(child) for _, child in below)
        self.entries -= 1 + len(below)
        place.parent.modified_at = now

    def rename(self, old: Place, new: Place, *, now: float) -> None:
        """Both must have been found; what is at ``new`` is replaced."""
        if new.parent.entries.get(new.name) is not None:
            self.remove(new, now=now)
        new.parent.entries[new.name] = old.parent.entries.pop(old.name)
        old.parent.modified_at = new.parent.modified_at = now

    def _account(self, size: int, entries: int) -> None:
        if self.size_bytes + size > self._limit_bytes or self.entries + entries > self._limit_entries:
            raise LimitExceeded(
                f"The disk is full: a workspace of the mock holds {self._limit_bytes} bytes in {self._limit_entries} entries.",
                mend="Delete what is not needed, or plan a larger disk.",
            )
        self.size_bytes += size
        self.entries += entries


def walk(directory: Directory) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Everything below, sorted by name, directory by directory; links are not followed."""
    levels = [iter(sorted(directory.entries.items()))]
    names: list[str] = []
    while levels:
        following = next(levels[-1], None)
        if following is None:
            levels.pop()
            if names:
                names.pop()
            continue
        name, node = following
        yield (*names, name), node
        if isinstance(node, Directory):
            levels.append(iter(sorted(node.entries.items())))
            names.append(name)


def kind_of(node: Node) -> FileKind:
    match node:
        case File():
            return FileKind.FILE
        case Directory():
            return FileKind.DIRECTORY
        case Link():
            return FileKind.SYMLINK
        case Pipe():
            return FileKind.OTHER


def file_stat(path: str, node: Node) -> FileStat:
    return FileStat(
        path=path,
        kind=kind_of(node),
        size_bytes=_bytes_of(node),
        mode=node.mode,
        modified_at=node.modified_at,
        target=node.target if isinstance(node, Link) else None,
    )


def _bytes_of(node: Node) -> int:
    match node:
        case File(content=content):
            return len(content)
        case Link(target=target):
            return len(encode_path(target))
        case Directory() | Pipe():
            return 0


def _components(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


_ROOT_NAMES = _components(ROOT)


class _Walk:
    """One resolution, from the root on."""

    def __init__(self, root: Directory, path: str, *, follow: bool, create_parents: bool) -> None:
        self._way = [("", root)]
        self._path = path
        self._follow = follow
        self._create_parents = create_parents
        self._pending: list[str] = []
        self._links = 0

    def run(self, path: str) -> Place:
        self._queue(path)
        for _ in range(MAX_STEPS):
            if not self._pending:
                return self._here()
            name = self._pending.pop()
            if name == "..":
                if len(self._way) == 1:
                    raise self._leads_out()
                self._way.pop()
                continue
            if len(encode_path(name)) > MAX_NAME_BYTES:
                raise PathRefused(f"{show_path(self._path)} has a name that is too long.")
            place = self._step(name)
            if place is not None:
                return place
        raise PathRefused(f"{show_path(self._path)} has too many parts.")

    def _step(self, name: str) -> Place | None:
        """One name further; the place, where it is the last one."""
        found = self._way[-1][1].entries.get(name)
        if isinstance(found, Link) and (self._pending or self._follow):
            self._links += 1
            if self._links > MAX_LINKS:
                raise PathRefused(f"{show_path(self._path)} goes through too many symbolic links.")
            self._queue(found.target)
            return None
        if not self._pending:
            return Place(self._way, name, found, names_directory=False)
        if found is None:
            where = "/".join([*(above for above, _ in self._way[1:]), name])
            if not self._create_parents:
                raise NotFound(f"The directory {show_path(where)} is not there.")
            found = Directory(mode=0o755, modified_at=self._way[-1][1].modified_at)
        if not isinstance(found, Directory):
            where = "/".join([*(above for above, _ in self._way[1:]), name])
            raise NotADirectory(f"{show_path(where)} is not a directory.")
        self._way.append((name, found))
        return None

    def _queue(self, path: str) -> None:
        """Put the parts of a path or of a link's target before what is still to be walked."""
        names = _components(path)
        if path.startswith("/"):
            if names[: len(_ROOT_NAMES)] != _ROOT_NAMES:
                raise self._leads_out()
            names = names[len(_ROOT_NAMES) :]
            del self._way[1:]
        self._pending.extend(reversed(names))

    def _here(self) -> Place:
        """The path ended on a directory that the walk stands in (``.``, ``a/..``, a link to such)."""
        name, found = self._way[-1]
        if len(self._way) == 1:
            return Place(self._way, ".", found, names_directory=False)
        return Place(self._way[:-1], name, found, names_directory=False)

    def _leads_out(self) -> PathRefused:
        return PathRefused(
            f"{show_path(self._path)} leads out of the workspace.",
            mend="Give a path relative to the root of the workspace, without links that point elsewhere.",
            details={"path": self._path.encode("utf-8", "backslashreplace").decode()},
        )
