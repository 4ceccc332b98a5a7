"""A repository of several languages with everything that makes tools stumble: names, line ends, a submodule, modes, links."""

import os
import subprocess
from pathlib import Path

CHECK = "sh ./check.sh"
"""Fails until ``SCRIPT`` was carried out."""
SUBMODULE = "vendor/greeting"
NAMES: tuple[bytes, ...] = (
    "src/naïve café.py".encode(),
    "src/日本語/🎉.rs".encode(),
    b"src/caf\xe9.c",
    b"docs/two\nlines.txt",
    b"docs/tab\there.txt",
    b"docs/ blanks .txt ",
    b"docs/quo\"te's.txt",
    b"docs/back\\slash.txt",
    b"docs/$(touch owned);`id`.txt",
    b"docs/glob[ab]*?.txt",
    b"-rf",
    b"--help.md",
    b"docs/#hash%20?.txt",
)

_CHECK_SH = b"""#!/bin/sh
set -eu
cd "$(dirname "$0")"
printf '[net]\\r\\nretries=3\\r\\n' | cmp - windows/settings.ini
grep -q '^GREETING = "hello"$' 'src/na\xc3\xafve caf\xc3\xa9.py'
cmp - 'docs/two
lines.txt' <<'END'
new
END
test ! -e ./-rf
test ! -e owned
echo all good
"""

SCRIPT = r"""
version: 1
steps:
  - calls:
      - {tool: run_terminal_cmd, arguments: {command: sh ./check.sh, timeout_s: 60}, expect: {exit_code: 1}}
      - {tool: list_dir, arguments: {path: docs}, expect: {contains: 'two\nlines.txt', is_error: false}}
      - {tool: read_file, arguments: {path: windows/settings.ini}, expect: {contains: retries=2, is_error: false}}
      - {tool: read_file, arguments: {path: "docs/$(touch owned);`id`.txt"}, expect: {is_error: false}}
  - calls:
      - tool: search_replace
        arguments: {path: windows/settings.ini, old: "[net]\r\nretries=2\r\n", new: "[net]\r\nretries=3\r\n"}
        expect: {is_error: false}
      - tool: search_replace
        arguments: {path: src/naïve café.py, old: 'GREETING = "bye"', new: 'GREETING = "hello"'}
        expect: {is_error: false}
      - {tool: edit_file, arguments: {path: "docs/two\nlines.txt", content: "new\n"}, expect: {is_error: false}}
      - {tool: delete_file, arguments: {path: "-rf"}, expect: {is_error: false}}
  - calls:
      - {tool: run_terminal_cmd, arguments: {command: sh ./check.sh, timeout_s: 60}, expect: {exit_code: 0, contains: all good}}
  - calls:
      - {tool: finish, arguments: {summary: The check passes., success: true}}
"""


def make_polyglot(directory: Path) -> Path:
    """The repository, with one commit, beside the one that its submodule comes from."""
    greeting, repository = directory / "greeting", directory / "polyglot"
    _write(greeting, b"greeting.sh", b"#!/bin/sh\necho hello\n")
    _commit(greeting)
    for name in NAMES:
        _write(repository, name, b"old\n")
    _write(repository, "src/naïve café.py".encode(), b'GREETING = "bye"\n')
    _write(repository, b"windows/settings.ini", b"[net]\r\nretries=2\r\n")
    _write(repository, b"windows/mixed.txt", b"one\r\ntwo\nthree\r\n")
    _write(repository, b"web/index.mjs", b"export const answer = 42;\n")
    _write(repository, b"web/logo.bin", bytes(range(256)))
    _write(repository, b"empty", b"")
    _write(repository, b"no-final-newline.txt", b"the end")
    _write(repository, b"check.sh", _CHECK_SH)
    (repository / "check.sh").chmod(0o755)
    (repository / "link").symlink_to("src/naïve café.py")
    (repository / "broken-link").symlink_to("nowhere")
    _git(repository, "init", "--quiet", "--initial-branch=main")
    _git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(greeting), SUBMODULE)
    _commit(repository)
    return repository


def _write(root: Path, name: bytes, content: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(root) + b"/" + name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _commit(repository: Path) -> None:
    _git(repository, "init", "--quiet", "--initial-branch=main")
    _git(repository, "add", "--all")
    _git(repository, "commit", "--quiet", "--message=Begin")


def _git(directory: Path, *arguments: str) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@localhost",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@localhost",
    }
    subprocess.run(["git", *arguments], cwd=directory, env=env, check=True, timeout=60)
