"""Commands and copies over the system's own ssh, so that the user's configuration applies.

Aliases, keys, ports and jump hosts are OpenSSH's to know; passwords are its to ask for, on the
terminal. All that goes to a host shares one connection, so that it asks once. Files go there as a
stream for ``tar``: small systems have no SFTP server, and no scp either.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from trpexport.errors import MissingDependencyError, TrpexportError

_CONNECTION_FAILED = 255  # ssh's own failures; a command's exit code is handed through
_COMMON_OPTIONS = (
    "LogLevel=ERROR",  # no banners, no notices
    "ConnectTimeout=15",
    "ServerAliveInterval=15",  # a device that was unplugged is noticed within a minute
    "RemoteCommand=none",
    "RequestTTY=no",
)
_KEPT_SECONDS = 60  # how long the shared connection outlives its last user, should we be killed
_CAUSES = (
    (
        r"Could not resolve|Name or service not known|refused|timed out|No route|unreachable"
        r"|Connection (closed|reset)",
        "can't be reached ({reason}): check the name, and that ssh {host} connects",
    ),
    (
        r"Permission denied|Too many authentication failures|not allowed",
        "does not let this user in ({reason}): set up a key with ssh-copy-id {host}",
    ),
    (
        r"Host key verification failed|IDENTIFICATION HAS CHANGED",
        "is not known, or has changed ({reason}): run ssh {host} once and check its key",
    ),
)


class Completed(NamedTuple):
    """How a remote command ended: exit code, and what it printed."""

    code: int
    output: str
    log: str


@contextmanager
def connect(host: str, *, ssh: Sequence[str] = ("ssh",)) -> Iterator[Connection]:
    """Connect to a host, and disconnect when the block ends.

    Args:
        host: what ssh knows the host by: ``user@device``, an alias, an address.
        ssh: the program and its leading arguments.

    Raises:
        TrpexportError: ``host`` is no name of a host, can't be reached, or lets nobody in.
        MissingDependencyError: there is no ssh here.
    """
    check_host(host)
    # Without a terminal nobody could answer a question, and ssh would wait for ever.
    batch = "no" if sys.stdin is not None and sys.stdin.isatty() else "yes"
    with tempfile.TemporaryDirectory(prefix="trp-") as folder:
        socket = f'ControlPath="{folder}/ssh"'
        options = [
            part
            for option in (*_COMMON_OPTIONS, f"BatchMode={batch}", socket)
            for part in ("-o", option)
        ]
        connection = Connection(host, [*ssh, *options])
        try:
            connection.open()
            yield connection
        finally:
            connection.close()


class Connection:
    """A connection to one host; made by :func:`connect`.

    Attributes:
        host: the host, as the user named it.
    """

    def __init__(self, host: str, ssh: Sequence[str]) -> None:
        self.host = host
        self._ssh = ssh

    def open(self) -> None:
        """Connect, and leave the connection open for what comes after.

        Raises:
            TrpexportError: the host can't be reached, or lets nobody in.
            MissingDependencyError: there is no ssh here.
        """
        share = ["-o", "ControlMaster=yes", "-o", f"ControlPersist={_KEPT_SECONDS}"]
        # A file, not a pipe: until OpenSSH 8.7 what stays behind keeps standard error open.
        with tempfile.TemporaryFile() as log:
            process = _start(
                [*self._ssh, *share, "--", self.host, "true"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            code = process.wait()
            log.seek(0)
            self._check(code, log.read().decode(errors="replace"))

    def close(self) -> None:
        """Disconnect; of a connection that is not open, nothing is said."""
        with suppress(MissingDependencyError):
            _start(
                [*self._ssh, "-O", "exit", "--", self.host],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ).wait()

    def run(self, command: str, *, on_line: Callable[[str], None] | None = None) -> Completed:
        """Run a command there; its standard input stays open as long as somebody waits for it.

        Args:
            command: what the login shell there, whichever it is, gets to read.
            on_line: called with each line on standard error as it comes.

        Raises:
            TrpexportError: the connection failed.
        """
        lines: list[str] = []
        with tempfile.TemporaryFile() as output:
            process = _start(
                [*self._ssh, "--", self.host, command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.PIPE,
            )
            with process:
                try:
                    assert process.stderr is not None
                    for line in process.stderr:
                        lines.append(line.decode(errors="replace").rstrip())
                        if on_line is not None:
                            on_line(lines[-1])
                except BaseException:
                    process.terminate()
                    raise
            log = "\n".join(lines)
            self._check(process.returncode, log)
            output.seek(0)
            return Completed(process.returncode, output.read().decode(errors="replace"), log)

    @contextmanager
    def attended(self, command: str) -> Iterator[Attended]:
        """Run a command there whose standard input ends with the block, or with this process.

        Args:
            command: what the login shell there, whichever it is, gets to read.
        """
        with tempfile.TemporaryFile() as log:
            process = _start(
                [*self._ssh, "--", self.host, command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            with process:
                yield Attended(process, log)

    def copy(self, files: Sequence[Path], directory: str) -> None:
        """Copy files and folders into a directory there; symbolic links are followed.

        Raises:
            TrpexportError: it fails.
        """
        with tempfile.TemporaryFile() as log:
            process = _start(
                [*self._ssh, "--", self.host, f"tar -xf - -C {directory}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            assert process.stdin is not None
            # Where the other side ends early, it says why.
            with process, suppress(BrokenPipeError), process.stdin as stream:
                how: Any = {"format": tarfile.GNU_FORMAT, "dereference": True}
                with tarfile.open(fileobj=stream, mode="w|", **how) as archive:
                    for file in files:
                        archive.add(file, file.name, filter=_without_owner)
            log.seek(0)
            said = log.read().decode(errors="replace")
        self._check(process.returncode, said)
        if process.returncode != 0:
            reason = last_line(said, process.returncode)
            raise TrpexportError(f"can't copy to {self.host}:{directory}: {reason}")

    def _check(self, code: int, log: str) -> None:
        """Raise what an exit code of ssh means, if it is the connection that failed."""
        if code != _CONNECTION_FAILED:
            return
        for line in log.splitlines():  # the first cause: what comes after follows from it
            for pattern, message in _CAUSES:
                if re.search(pattern, line):
                    text = message.format(reason=line.strip(), host=self.host)
                    raise TrpexportError(f"{self.host} {text}")
        raise TrpexportError(
            # Without a word, ssh ends with the same code where a signal ended the command.
            f"{self.host} ended the run ({last_line(log, code)}): the connection broke, or the "
            "program there was killed, for lack of memory perhaps"
        )


class Attended:
    """A command on a host that runs as long as somebody attends; of :meth:`Connection.attended`."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self._process = process
        self._log = log

    def line(self, mark: str) -> str | None:
        """Wait for a line on standard output that begins with a mark; None where none comes.

        Returns:
            The rest of the line.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:  # a login script may have its say before
            if line.startswith(mark.encode()):
                return line.decode(errors="replace").removeprefix(mark).strip()
        return None

    def end(self) -> Completed:
        """End its standard input, and wait for its own end."""
        output, _ = self._process.communicate()
        self._log.seek(0)
        log = self._log.read().decode(errors="replace")
        return Completed(self._process.returncode, output.decode(errors="replace"), log)


def check_host(host: str) -> str:
    """Return ``host`` if it can be one, and not an option of ssh's, nor a command.

    Raises:
        TrpexportError: it can't.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.\[][\w.@:%+=\[\]~\\-]*", host, re.ASCII) or "@-" in host:
        raise TrpexportError(
            f"{host!r} is no host: name it as ssh knows it, as in user@device",
            parameters=("host",),
        )
    return host


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Let a file belong to whoever unpacks it, who may read it whatever its owner may here."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode |= 0o600
    return member


def last_line(log: str, code: int) -> str:
    """Return the last line of a log; the exit code where it is empty."""
    lines = log.strip().splitlines()
    return lines[-1].strip() if lines else f"exit code {code}"


def _start(command: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, **streams)
    except FileNotFoundError:
        raise MissingDependencyError(
            f"{command[0]} is not installed here: apt-get install openssh-client"
        ) from None
