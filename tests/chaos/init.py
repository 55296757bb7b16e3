"""The first process of a host that is made of namespaces: `init.py NAME FOLDER MEGABYTES`.

It arranges the disk and the name, adopts orphans, and ends with its standard input: so all that runs on the host ends
with the test that made it, however the test ends. Megabytes: the size of the disk; 0 for a folder of the machine.
"""

import os
import signal
import socket
import subprocess
import sys

DISK = "/mnt"


def reap(*_: object) -> None:
    """Take note of every child that has ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def main(name: str, folder: str, megabytes: int) -> None:
    """Become the host."""
    # The same path on every host, and on each another disk.
    disk = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs"] if megabytes else ["--bind", folder]
    subprocess.run(["mount", *disk, DISK], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    socket.sethostname(name)
    signal.signal(signal.SIGCHLD, reap)
    print("up", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
