"""A cluster that is not there is told at once, in one line."""

from __future__ import annotations

import signal
import socket
from typing import Any

import pytest

from tests.ray_clusters import FakeRay
from trpexport.clusters import connected
from trpexport.errors import TrpexportError


@pytest.fixture
def addresses(fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Ray is asked to connect to: it finds no cluster anywhere."""
    found = []

    def init(*, address: str, **_: Any) -> None:
        found.append(address)
        raise ConnectionError("no instance of Ray was found\nand more")

    monkeypatch.setattr(fake_ray, "is_initialized", lambda: False)
    monkeypatch.setattr(fake_ray, "init", init, raising=False)
    return found


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_ray_is_not_asked_where_nobody_answers(scheme: str, addresses: list[Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(TrpexportError, match="no instance of Ray"), connected(address):
            pass
    assert addresses == [address]
    with pytest.raises(TrpexportError, match=f"no Ray cluster at {address} "), connected(address):
        pass
    assert addresses == [address]


@pytest.mark.parametrize("address", ["auto", "nowhere"])
def test_what_ray_says_is_told_in_one_line(address: str, addresses: list[Any]) -> None:
    with pytest.raises(TrpexportError) as caught, connected(address):
        pass
    assert str(caught.value) == (
        f"there is no Ray cluster at {address} (no instance of Ray was found): start one with ray "
        "start --head, or leave it out to work on this machine alone"
    )
    assert addresses == [address]


def test_signals_do_what_they_did(fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def own(*_: object) -> None:
        """What the program does."""

    monkeypatch.setattr(fake_ray, "is_initialized", lambda: False)
    monkeypatch.setattr(fake_ray, "init", init, raising=False)
    monkeypatch.setattr(fake_ray, "shutdown", lambda: None, raising=False)
    before = signal.signal(signal.SIGTERM, own)
    try:
        with connected("auto"):
            assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
