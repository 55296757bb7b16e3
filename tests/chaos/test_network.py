"""The hosts themselves: what a cut, a full disk and a death mean, before anything of telltale runs on them."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.hosts import Network, NoDisk, bare_environment, marked, network, possible_isolation

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SERVE = "import http.server, sys; http.server.test(bind=sys.argv[1], port=int(sys.argv[2]))"


@pytest.fixture(scope="module", params=["namespaces", "processes"])
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    if request.param == "namespaces" and possible_isolation() != "namespaces":
        pytest.skip("namespaces are not permitted here")
    with network(tmp_path_factory.mktemp("network"), request.param) as made:
        made.add("one", megabytes=4)
        made.add("two")
        yield made
    assert marked(made.name) == []


def answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return bool(connection.recv(1))
    except OSError:
        return False


def wait_for_answer(address: str, port: int) -> None:
    deadline = time.monotonic() + 20
    while not answers(address, port):
        assert time.monotonic() < deadline


def test_a_host_that_is_cut_off_is_silent_and_comes_back_with_its_processes(hosts: Network) -> None:
    one = hosts.hosts["one"]
    port = 20000 + os.getpid() % 10000
    program = one.start("web", [sys.executable, "-c", SERVE, one.address, str(port)], bare_environment())
    wait_for_answer(one.address, port)
    before = program.pids()
    one.cut()
    assert not answers(one.address, port)
    one.restore()
    wait_for_answer(one.address, port)
    assert program.pids() == before
    assert program.kill() >= 1
    assert not answers(one.address, port)


def test_a_host_that_dies_takes_its_processes_along_and_boots_again(hosts: Network) -> None:
    two = hosts.hosts["two"]
    nested = "import subprocess, sys; subprocess.run(['sleep', '1000'], start_new_session=True)"
    two.start("nest", [sys.executable, "-c", nested], bare_environment())
    deadline = time.monotonic() + 20
    while len(marked(two.mark)) < 2:
        assert time.monotonic() < deadline
    two.kill()
    assert marked(two.mark) == []
    two.boot()
    assert two.run(["echo", "here"], bare_environment()) == "here\n"


def test_a_full_disk_is_full_for_this_host_only_until_it_is_freed(hosts: Network) -> None:
    one = hosts.hosts["one"]
    if hosts.isolation == "processes":
        with pytest.raises(NoDisk):
            one.fill_disk()
        return
    write = [sys.executable, "-I", "-c", "open('/mnt/file', 'wb').write(bytes(8192))"]
    assert one.fill_disk() >= 3 * 2**20
    with pytest.raises(subprocess.CalledProcessError) as failed:
        one.run(write, bare_environment())
    assert os.strerror(errno.ENOSPC) in failed.value.stderr
    one.free_disk()
    one.run(write, bare_environment())


def test_nothing_is_left_of_a_network_whose_test_was_killed(tmp_path: Path) -> None:
    if possible_isolation() != "namespaces":
        pytest.skip("namespaces are not permitted here")
    code = (
        "import sys, time; from pathlib import Path; from tests.chaos.hosts import bare_environment, network\n"
        "with network(Path(sys.argv[1]), 'namespaces') as made:\n"
        "    made.add('one').start('sleep', ['sleep', '1000'], bare_environment())\n"
        "    print(made.name, flush=True)\n"
        "    time.sleep(1000)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    cable = Path("/sys/class/net") / name
    assert cable.exists()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    deadline = time.monotonic() + 20
    while marked(name) or cable.exists():
        assert time.monotonic() < deadline, (marked(name), cable.exists())
        time.sleep(0.1)
