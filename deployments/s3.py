"""`make s3`: a local S3 server (SeaweedFS) for development and tests, with a bucket and credentials of its own.

    python -m deployments.s3

It listens on 127.0.0.1 only, reports to nobody, and keeps its data in a temporary folder that goes when it ends.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from storage.errors import TelltaleError
from storage.store import STORE_SETTING

BUCKET = "telltale"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
SERVICES = ("s3", "master", "volume", "filer")
# SeaweedFS puts sockets here whatever it is told, and leaves some behind.
SOCKETS = Path("/tmp")


class S3ServerFailed(TelltaleError):
    """The local S3 server is not installed or did not start."""


@dataclass
class S3Server:
    """A local S3 server over a folder. It may be stopped or killed, and started again where it was.

    Args:
        folder: holds its data, its configuration and its log.
        bucket: made when it starts for the first time.
        address: where it listens.
        within: turns its command into the one that is run, for a server on another (simulated) host.
    """

    folder: Path
    bucket: str = BUCKET
    address: str = "127.0.0.1"
    within: Callable[[list[str]], list[str]] = list
    ports: dict[str, tuple[int, int]] = field(default_factory=dict)
    key: str = field(default_factory=lambda: f"key{secrets.token_hex(8)}")
    secret: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        """The server's address."""
        return f"http://{self.address}:{self.ports['s3'][0]}"

    @property
    def environment(self) -> dict[str, str]:
        """The settings under which telltale keeps its objects here."""
        return {
            STORE_SETTING: f"s3://{self.bucket}/store",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def log(self) -> Path:
        """What the server writes about itself."""
        return self.folder / "log"

    def start(self) -> None:
        """Start the server and wait until it takes objects.

        Raises:
            S3ServerFailed: it is not installed, ended, or does not answer; the message ends with its log.
        """
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        # Between looking for free ports and taking them another program may have come; a restart keeps its own.
        for attempts_left in (0,) if self.ports else (2, 1, 0):
            self.ports = self.ports or _free_ports()
            self._launch()
            if self._becomes_ready():
                return
            self.kill()
            if not attempts_left:
                lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
                raise S3ServerFailed("the S3 server did not start; its log says:\n" + "\n".join(lines))
            self.ports = {}

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.within([_program(), *self._arguments()]),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _becomes_ready(self) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            if self._answers() and self._takes_objects():
                return True
            time.sleep(0.2)
        return False

    def stop(self) -> None:
        """End the server in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a crash does."""
        self._end(signal.SIGKILL)

    def wait(self) -> int:
        """Wait until the server ends; returns its exit status."""
        return 0 if self._process is None else self._process.wait()

    def _end(self, sent: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(sent)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        for name, (public, internal) in self.ports.items():
            for socket_name in (f"seaweedfs-{name}-{public}.sock", f"seaweedfs-{name}-grpc-{internal}.sock"):
                (SOCKETS / socket_name).unlink(missing_ok=True)

    def _arguments(self) -> list[str]:
        ports = [
            option
            for name, (public, internal) in self.ports.items()
            for option in (f"-{name}.port={public}", f"-{name}.port.grpc={internal}")
        ]
        return [
            "server",
            f"-ip={self.address}",
            f"-ip.bind={self.address}",
            f"-dir={self.folder / 'data'}",
            "-master.telemetry=false",
            # Small volumes and many of them: every bucket has some of its own.
            "-master.volumeSizeLimitMB=128",
            "-volume.max=200",
            # Otherwise it waits ten seconds before it stops, and takes nothing where the disk is almost full.
            "-volume.preStopSeconds=0",
            "-volume.minFreeSpace=1",
            "-s3",
            f"-s3.config={self.folder / 's3.json'}",
            "-s3.autoCreateBucket=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *ports,
        ]

    def _write_configuration(self) -> None:
        identity = {
            "name": "telltale",
            "credentials": [{"accessKey": self.key, "secretKey": self.secret}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        configuration = self.folder / "s3.json"
        configuration.touch(mode=0o600)
        configuration.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.endpoint}/healthz", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _takes_objects(self) -> bool:
        """Make the bucket, if it is not there, and put something into it: the server answers before it can do that."""
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import get_session

        client = get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
        )
        try:
            with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=self.bucket)
            client.put_object(Bucket=self.bucket, Key="ready", Body=b"")
            client.delete_object(Bucket=self.bucket, Key="ready")
        except (BotoCoreError, ClientError):
            return False
        return True


@contextmanager
def serving(folder: Path | None = None, bucket: str = BUCKET) -> Iterator[S3Server]:
    """A local S3 server for as long as the block lasts, over a temporary folder or a given one."""
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="telltale-s3-")))
        server = S3Server(place, bucket)
        # Its data go with it: nothing is lost by not waiting until it has put them in order.
        stack.callback(server.kill)
        server.start()
        yield server


def _program() -> str:
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise S3ServerFailed("SeaweedFS is not installed: python -m pip install --constraint constraints.txt '.[dev]'")
    return program


def _free_ports() -> dict[str, tuple[int, int]]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2 * len(SERVICES))]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        numbers = iter([int(each.getsockname()[1]) for each in sockets])
        return {name: (next(numbers), next(numbers)) for name in SERVICES}


def main() -> None:
    """Serve in the foreground until Ctrl-C or SIGTERM."""
    # There is nothing to choose: only --help, and a word that somebody meant for another command.
    argparse.ArgumentParser(
        prog="python -m deployments.s3", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), serving() as server:
        print("An S3 server for this machine. In another shell:")
        for name, value in server.environment.items():
            print(f"    export {name}={value}")
        print("Ctrl-C ends it and removes its data.", flush=True)
        raise SystemExit(server.wait())


if __name__ == "__main__":
    try:
        main()
    except TelltaleError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
