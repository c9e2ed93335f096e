"""Networks that the machines of a Ray cluster calibrate, several at the same time.

The original network and the images travel there, and what came of each layer comes back: a machine
needs this library, and the modules that a network of one's own is made of.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trpexport.choose.calibrate import Calibrated, calibrate
from trpexport.choose.factorizer import Factorizer
from trpexport.choose.fits import Fit, FitStore
from trpexport.choose.gathering import Gatherer
from trpexport.clusters import cancelled, connected, result_of, task
from trpexport.errors import TrpexportError
from trpexport.foreign import first_line, told
from trpexport.importing import started_in
from trpexport.networks.base import Network
from trpexport.networks.samples import Samples
from trpexport.plan import Plan
from trpexport.turns import working

_POLL = 0.5  # seconds between two looks at whether the job is to stop

Say = Callable[[str], None]
Waiting = Callable[[], AbstractContextManager[Callable[[], None]]]
Found = tuple[dict[str, Fit | None], dict[str, float]]
"""What came of each layer of a plan, and the errors by output."""


@dataclass(frozen=True)
class _Job:
    """What the networks of one job have in common, in a process of the cluster."""

    network: Network
    gatherer: Gatherer
    factorizer: Factorizer


_jobs: dict[str, _Job] = {}  # of this process, by name


def _nothing_else() -> AbstractContextManager[Callable[[], None]]:
    return nullcontext(lambda: None)


@dataclass(frozen=True)
class OnRay:
    """Calibrates networks on a Ray cluster, as many at once as it has cores for.

    Attributes:
        address: of the cluster; ``auto`` for the one that runs here.
        jobs: how many jobs share the cluster.
        waiting: entered while the cluster works; gives what is called now and then meanwhile.
    """

    address: str = "auto"
    jobs: int = 1
    waiting: Waiting = _nothing_else
    _sent: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def fit(
        self, network: Network, samples: Samples, plans: Sequence[Plan], store: FitStore, say: Say
    ) -> None:
        """Have the layers of plans fitted, and keep what comes of them as it comes.

        A plan that the cluster lost for good is left out: whoever looks for its layers in vain
        fits them.

        Args:
            network: the original network.
            samples: what its layers are fitted to.
            plans: which layers are rewritten, how, and at which ranks.
            store: of the same network on the same images: what it knows is not fitted again.
            say: called with a line on what is going on.

        Raises:
            TrpexportError: there is no such cluster, the network can't be sent there, or as
                :func:`~trpexport.choose.calibrate.calibrate`.
        """
        wanted = [plan for plan in plans if plan.rewritten and store.errors(plan) is None]
        if not wanted:
            return
        say(f"to calibrate on the cluster: {len(wanted)}")
        with connected(self.address) as ray:
            job = self._send(ray, network, samples, store.origin)
            cores = _cores(ray, len(wanted) * self.jobs)
            fitting = task(ray, _fit_apart, cores=cores)
            place = str(Path.cwd())
            pending = {fitting.remote(*job, plan, place, cores): plan for plan in wanted}
            count = len(pending)
            with self.waiting() as check, cancelled(ray, pending):
                while pending:
                    check()
                    done, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL)
                    for ref in done:
                        self._keep(ray, ref, pending.pop(ref), store, say)
                        say(f"{count - len(pending)} of {count}: calibrated on the cluster")

    def _send(self, ray: Any, network: Network, samples: Samples, origin: str) -> tuple[str, Any]:
        """Return name and reference of what is sent once, however many plans there are.

        Raises:
            TrpexportError: the network can't be sent.
        """
        name = hashlib.sha256(origin.encode()).hexdigest()
        key = f"{ray.get_runtime_context().get_job_id()} {name}"  # it ends with the connection
        if key not in self._sent:
            try:
                content = ray.cloudpickle.dumps((network.on(torch.device("cpu")), samples))
            except Exception as error:  # whatever a module of one's own raises
                raise TrpexportError(
                    f"the network can't be sent to a cluster ({told(error)}): calibrate it here",
                    parameters=("ray",),
                ) from error
            self._sent[key] = ray.put(content)
        return name, self._sent[key]

    @staticmethod
    def _keep(ray: Any, ref: Any, plan: Plan, store: FitStore, say: Say) -> None:
        """Keep what came of a plan, unless the cluster lost it.

        Raises:
            TrpexportError: it can't be calibrated there.
        """
        try:
            fits, errors = result_of(ray, ref)
        except ray.exceptions.RayError as error:
            say(f"the cluster lost a network, which is calibrated here: {first_line(error)}")
            return
        for name, fit in fits.items():
            store.keep(plan, name, fit)
        store.keep_errors(plan, errors)


def connected_to(cluster: OnRay | None) -> AbstractContextManager[Any]:
    """Stay connected to a cluster, if there is to be one, while a block runs.

    Raises:
        MissingDependencyError: Ray is not installed.
        TrpexportError: there is no such cluster.
    """
    return nullcontext() if cluster is None else connected(cluster.address)


def _cores(ray: Any, tasks: int) -> int:
    """Return on how many cores each of some tasks may work, so that all of them run at once."""
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    usable = [count for count in cores if count]
    return max(1, min([*usable, sum(usable) // tasks]))


def _fit_apart(name: str, content: bytes, plan: Plan, directory: str, cores: int) -> Found:
    """Calibrate by a plan on a node of the cluster.

    Args:
        name: of the job.
        content: its network and samples.
        plan: the plan.
        directory: that the job was started in.
        cores: how many this task has.
    """
    torch.set_num_threads(cores)
    with started_in(directory), working(_silent):
        if name not in _jobs:
            _jobs.clear()
            network, samples = pickle.loads(content)
            gatherer = Gatherer(network, network.watch(samples))
            _jobs[name] = _Job(network, gatherer, Factorizer(network))
        job = _jobs[name]
        return _content(calibrate(job.network, plan, job.gatherer, factorizer=job.factorizer))


def _content(found: Calibrated) -> Found:
    """Return what came of each layer; None for one that was not fitted."""
    fitted: dict[str, Fit | None] = {
        layer.name: (found.chains[layer.name], layer) for layer in found.layers
    }
    return {name: fitted.get(name) for name in found.chains}, dict(found.errors)


def _silent(line: str) -> None:
    """Say nothing: nobody reads it there."""
