"""A machine to reach over SSH: a real sshd on loopback, run by the user who runs the tests.

It has no SFTP, as small systems have none.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class Device:
    """A machine that ssh knows as ``device``.

    Its configuration knows others too: ``off``, which does not answer; ``stranger``, which does
    not know the user; and ``unverified``, whose key the user does not know.

    Attributes:
        root: its directory for temporary files.
        programs: a directory that comes first in its PATH.
        config: the user's configuration of ssh.
    """

    root: Path
    programs: Path
    config: Path

    @property
    def options(self) -> dict[str, Any]:
        """The program, as keyword arguments."""
        return {"ssh": ("ssh", "-F", str(self.config))}

    def program(self, name: str, script: str) -> Path:
        """Puts a program on the machine."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def left_behind(self) -> list[str]:
        return [path.name for path in self.root.iterdir()]

    def clear(self) -> None:
        for folder in (self.root, self.programs):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def loopback_device(folder: Path) -> Iterator[Device]:
    """Runs the machine while the block does; skips the test where OpenSSH is missing."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH: apt-get install openssh-server openssh-client")
    device = Device(folder / "tmp", folder / "programs", folder / "ssh_config")
    device.root.mkdir()
    device.programs.mkdir()
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it, empty
    _configure(folder, device)
    log = folder / "log"
    with log.open("wb") as file:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=file)
    try:
        wait_until(lambda: server.poll() is not None or "listening" in log.read_text())
        assert server.poll() is None, log.read_text()
        yield device
    finally:
        server.terminate()
        server.wait()


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _configure(folder: Path, device: Device) -> None:
    for name in ("host", "user", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    port = _free_port()
    (folder / "sshd_config").write_text(
        f"""
        ListenAddress 127.0.0.1:{port}
        HostKey {folder}/host
        AuthorizedKeysFile {folder}/user.pub
        PasswordAuthentication no
        KbdInteractiveAuthentication no
        StrictModes no
        UsePAM no
        PidFile none
        SetEnv TMPDIR={device.root} PATH={device.programs}:{os.environ["PATH"]}
        """
    )
    kind, key, *_ = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    device.config.write_text(
        f"""
        Host *
            HostName 127.0.0.1
            User {getpass.getuser()}
            IdentitiesOnly yes
            IdentityAgent none
            UserKnownHostsFile {folder}/known_hosts
            GlobalKnownHostsFile none
            StrictHostKeyChecking yes
        Host device
            Port {port}
            IdentityFile {folder}/user
        Host stranger
            Port {port}
            IdentityFile {folder}/stranger
        Host off
            Port {_free_port()}
        Host unverified
            Port {port}
            HostKeyAlias nobody
        """
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
