"""A PostgreSQL server to throw away, for tests: started, stopped, killed, and given a database for each.

Loaded by conftest.py for its fixtures; `Cluster` is for tests that need a server of their own.
"""

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any

import psycopg
import pytest

USER = "wavemock"
GUARDED = "guarded"
"""A user who is asked for a password, unlike the first one; tests create it."""
START_SECONDS = 30
_FAST = ("-c", "fsync=off", "-c", "full_page_writes=off")
_ACCESS = f"host all {GUARDED} all scram-sha-256\nlocal all all trust\nhost all all 127.0.0.1/32 trust\n"


def folder_of_programs() -> Path | None:
    """Where initdb and postgres are, the newest ones; None where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    ours = [Path(found).resolve().parent] if found else []
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return next((each for each in [*ours, *reversed(debian)] if (each / "postgres").exists()), None)


class Cluster:
    """A server of its own on 127.0.0.1 and on a socket, whose files are gone when it is closed.

    A context manager. `durable` has it write through to the disk, which takes long; without, kill -9 loses
    nothing either, as long as the machine goes on. The port stays the same over restarts.
    """

    def __init__(self, programs: Path, *, durable: bool = False) -> None:
        self._programs = programs
        self._options = () if durable else _FAST
        self._databases = count()
        self._process: subprocess.Popen[str] | None = None
        self.folder = Path(mkdtemp(prefix="wavemock-pg-"))
        # PostgreSQL does not run as root.
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            owner = _somebody()
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self._as = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        initdb = (str(programs / "initdb"), "-D", str(self._data), "-U", USER, "-A", "trust", "--no-sync")
        said = subprocess.run(
            [*initdb, "-E", "UTF8", "--locale=C"],
            **self._quiet(),
            capture_output=True,
            check=False,
            text=True,
        )
        assert said.returncode == 0, said.stderr
        (self._data / "pg_hba.conf").write_text(_ACCESS)

    def __enter__(self) -> "Cluster":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _quiet(self) -> dict[str, Any]:
        return {"cwd": self.folder, "env": {"PATH": os.defpath, "LC_ALL": "C"}, **self._as}

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The process that all others of the server come from."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def url(self, database: str = "postgres", *, user: str = USER) -> str:
        """The address of a database there, as a store takes it."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert time.monotonic() < deadline, f"PostgreSQL does not start: {self.log[-2000:]}"
            # What was killed may hold on to its memory for a moment, and a new one then gives up.
            if self._process is None or self._process.poll() is not None:
                self._launch()
            time.sleep(0.02)

    def _launch(self) -> None:
        places = ("-D", str(self._data), "-k", str(self.folder), "-h", "127.0.0.1", "-p", str(self.port))
        with (self.folder / "log").open("ab") as log:
            # It ends with the thread that started it, which has to be one that lasts.
            lasting = threading.current_thread() is threading.main_thread()
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), *places, "-c", "shared_buffers=32MB", *self._options],
                **self._quiet(),
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
                preexec_fn=_end_with_parent if lasting else None,  # noqa: PLW1509 - a single system call
            )

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Ends it in order; whoever is connected is told."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kills it with everything that serves a connection, as when the machine goes down."""
        if self._process is not None and self._process.poll() is None:
            # First of all it may start no more of them.
            self._process.send_signal(signal.SIGSTOP)
            for pid in self._children():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)
            self._process = None

    def _children(self) -> list[int]:
        # Only Linux tells; elsewhere they find out for themselves that the first process is gone.
        told = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in told.read_text().split()] if told.exists() else []

    def pause(self) -> None:
        """Stops it in its tracks: connections stay, and nothing is answered. `resume` or `kill` ends that."""
        for pid in [self.pid, *self._children()]:
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        for pid in [*self._children(), self.pid]:
            os.kill(pid, signal.SIGCONT)

    def new_database(self, more: str = "") -> str:
        """The URL of a database that is empty; `more` is what else CREATE DATABASE is told."""
        name = f"db{next(self._databases)}"
        ((version,),) = self.execute("SHOW server_version_num")
        # Since version 15 everything goes through the log otherwise, which takes three times as long.
        strategy = "STRATEGY FILE_COPY" if int(version) >= 150_000 else ""
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0 {strategy} {more}")
        return self.url(name)

    def empty_database(self, url: str) -> None:
        """Ends the connections that are left to a database, and makes it as it was when it was new."""
        here = "datname = current_database() AND pid <> pg_backend_pid()"
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {here}", url)
        self.execute("DROP SCHEMA public CASCADE", url)
        self.execute("CREATE SCHEMA public", url)
        self.execute("GRANT USAGE ON SCHEMA public TO PUBLIC", url)

    def execute(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """What a statement finds, in a database or the first one."""
        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []


_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """Has the server end when the tests are killed; elsewhere than on Linux it stays."""
    if sys.platform == "linux":
        _libc.prctl(1, int(signal.SIGQUIT))  # PR_SET_PDEATHSIG


def _somebody() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.fail("there is no user but root to run PostgreSQL as")


def programs_or_skip() -> Path:
    """Where PostgreSQL's programs are. Skips the test without them, or fails it where CI should have them."""
    found = folder_of_programs()
    if found is None:
        assert not os.environ.get("CI"), "CI has to install PostgreSQL"
        pytest.skip("PostgreSQL (initdb and postgres) is not installed")
    return found


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """The server that the tests of a process share; one that stops or kills it makes a Cluster of its own."""
    with Cluster(programs_or_skip()) as made:
        yield made


@pytest.fixture(scope="session")
def _postgres_database(postgres_cluster: Cluster) -> str:
    return postgres_cluster.new_database()


@pytest.fixture
def postgres_url(postgres_cluster: Cluster, _postgres_database: str) -> Iterator[str]:
    """A database that is empty. Emptied after each test: a new one takes ten times as long."""
    yield _postgres_database
    postgres_cluster.empty_database(_postgres_database)
