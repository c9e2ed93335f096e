"""The machines of a Ray cluster, which is an extra."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trpexport.errors import MissingDependencyError, TrpexportError
from trpexport.foreign import told
from trpexport.installing import install_command

_RETRIES = 5  # of a task whose worker or node is gone
_PATIENCE = 10.0  # seconds in which a cluster has to answer


@contextlib.contextmanager
def connected(address: str, variables: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Connect to a cluster while the block runs, unless this process is connected already.

    Args:
        address: of the cluster; ``auto`` for the one that runs here.
        variables: environment variables of the processes that work there.

    Raises:
        MissingDependencyError: Ray is not installed.
        TrpexportError: there is no such cluster.
    """
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    try:
        _check_answers(address)
        with _handlers_kept():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": dict(variables or {})},
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise TrpexportError(
            f"there is no Ray cluster at {address} ({str(error).splitlines()[0][:200]}): "
            "start one with ray start --head, or leave it out to work on this machine alone",
            parameters=("ray",),
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep what signals do: Ray has SIGTERM abort the process, with a trace of its native code."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if handler is not None:  # that of somebody's native code
                signal.signal(number, handler)


def _check_answers(address: str) -> None:
    """Try whether somebody answers at an address, for which Ray would wait for minutes.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def task(ray: Any, function: Callable[..., Any], *, cores: int = 1, **options: Any) -> Any:
    """Return a function as a task, which another worker takes over where its own is gone."""
    return ray.remote(function).options(num_cpus=cores, max_retries=_RETRIES, **options)


def result_of(ray: Any, ref: Any) -> Any:
    """Return what a task gave, or several did.

    Raises:
        TrpexportError: as the task, or it failed in another way; where the cluster lost it, Ray's
            own error is raised.
    """
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TrpexportError):
            raise error.cause from None
        raise TrpexportError(
            f"a machine of the cluster can't do its part ({told(error.cause)}): it needs the same "
            "trpexport, and the modules that the network is made of",
            parameters=("ray",),
        ) from error


def check_device(ray: Any, label: str) -> None:
    """Refuse a cluster no node of which is the device, by a resource that such nodes have.

    Raises:
        TrpexportError: it is one.
    """
    if ray.cluster_resources().get(label, 0) < 1:
        raise TrpexportError(
            f"no node of the cluster is the device: start one with ray start --address "
            f"... --resources '{{\"{label}\": 1}}'",
            parameters=("device_label",),
        )


@contextlib.contextmanager
def cancelled(ray: Any, pending: Mapping[Any, Any]) -> Iterator[None]:
    """End the tasks that are still at work where the block ends before them."""
    try:
        yield
    finally:
        for ref in pending:
            ray.cancel(ref, force=True)


def _ray() -> Any:
    """Return Ray.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise MissingDependencyError(
            f"clusters need Ray: {install_command('ray')}", parameters=("ray",)
        ) from None
    return ray
