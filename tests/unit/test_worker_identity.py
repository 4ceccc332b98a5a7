"""Whether a worker of this host is gone."""

import os
import subprocess
import sys

from shadow.engine.identity import is_gone, own_name


def test_who_lives_is_not_gone() -> None:
    assert not is_gone(own_name("here"), host="here")


def test_a_process_that_ended_is_gone_also_as_a_zombie() -> None:
    program = "from shadow.engine.identity import own_name; print(own_name('here:1'))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(name, host="here:1")
    process.communicate()
    assert is_gone(name, host="here:1")


def test_a_number_that_was_given_again_is_another_process() -> None:
    host, namespace, pid, began = own_name("here").split(":")
    assert is_gone(f"{host}:{namespace}:{pid}:{int(began) - 1}", host="here")


def test_what_cannot_be_seen_from_here_may_live() -> None:
    host, namespace, pid, began = own_name("here").split(":")
    others = (f"there:{namespace}:{pid}:1", f"{host}:1:{pid}:1", f"{host}:{namespace}:x:{began}", "worker", "")
    assert not any(is_gone(name, host="here") for name in others)
