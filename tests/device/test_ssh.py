"""Against a real sshd on loopback."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.device.loopback import Device
from trpexport.device.ssh import check_host, connect
from trpexport.errors import MissingDependencyError, TrpexportError


def failure(host: str, ssh: Sequence[str]) -> str:
    """The message of a connection that fails, which is one line."""
    with pytest.raises(TrpexportError) as caught, connect(host, ssh=ssh):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("off", r"off can't be reached \(.*refused\): check the name, and that ssh off connects"),
        ("stranger", r"stranger does not let this user in \(.*\): set up a key with ssh-copy-id"),
        ("unverified", r"unverified is not known, or has changed \(.*\): run ssh unverified once"),
    ],
)
def test_a_host_that_can_not_be_used(device: Device, host: str, message: str) -> None:
    assert re.match(message, failure(host, device.options["ssh"]))


def test_an_unknown_host(tmp_path: Path) -> None:
    (tmp_path / "config").touch()
    message = failure("device.invalid", ["ssh", "-F", str(tmp_path / "config")])  # RFC 2606
    assert message.startswith("device.invalid can't be reached (ssh: Could not resolve hostname")


def test_the_first_cause_is_told(tmp_path: Path) -> None:
    """Behind a jump host that lets nobody in, the last line says little."""
    ssh = tmp_path / "ssh"
    ssh.write_text(
        "#!/bin/sh\necho 'pi@jump: Permission denied (publickey).' >&2\n"
        "echo 'Connection closed by UNKNOWN port 65535' >&2; exit 255\n"
    )
    ssh.chmod(0o755)
    message = failure("device", [str(ssh)])
    assert message.startswith("device does not let this user in (pi@jump: Permission denied")


def test_no_ssh_here() -> None:
    with (
        pytest.raises(
            MissingDependencyError, match="no-ssh is not installed here: apt-get install"
        ),
        connect("device", ssh=["no-ssh"]),
    ):
        pass


@pytest.mark.parametrize(("terminal", "batch"), [(True, "no"), (False, "yes")])
def test_ssh_asks_nothing_where_nobody_could_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, batch: str
) -> None:
    ssh, seen = tmp_path / "ssh", tmp_path / "seen"
    ssh.write_text(f'#!/bin/sh\necho "$@" >> {seen}\n')
    ssh.chmod(0o755)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: terminal)
    with connect("device", ssh=[str(ssh)]):
        pass
    assert f"BatchMode={batch}" in seen.read_text()


def test_one_connection_serves_all(device: Device) -> None:
    """A second login would ask for the password again."""
    with connect("device", **device.options) as connection:
        first = connection.run("echo $SSH_CONNECTION").output
        assert connection.run("echo $SSH_CONNECTION").output == first
        assert connection.run("exit 3").code == 3
    with connect("device", **device.options) as connection:
        assert connection.run("echo $SSH_CONNECTION").output != first


def test_lines_come_while_the_command_runs(device: Device) -> None:
    lines: list[tuple[str, bool]] = []
    mark = device.root / "mark"

    def on_line(line: str) -> None:
        lines.append((line, mark.exists()))
        mark.touch()

    waiting = f"echo first >&2; until [ -e {mark} ]; do sleep 0.05; done; echo second >&2"
    with connect("device", **device.options) as connection:
        connection.run(waiting, on_line=on_line)
    assert lines == [("first", False), ("second", True)]


@pytest.mark.parametrize(
    "host",
    [
        "pi@raspberry.local",
        "jetson",
        "10.0.0.7",
        "user_1@host-2",
        "pi@fe80::1%eth0",
        "CORP\\me@box",
    ],
)
def test_hosts_that_ssh_knows_pass(host: str) -> None:
    assert check_host(host) == host


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", "-oProxyCommand=x", "user@-oProxyCommand=x", "a b", "a\nb", "a\tb", "a\x00b"),
        *("$(touch x)", "a;b", "a`b`", "a'b", "a|b", "a\u00a0b", "~/x"),
    ],
)
def test_what_is_no_host_is_refused_before_anything_runs(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    assert failure(host, ["ssh"]).endswith("is no host: name it as ssh knows it, as in user@device")
