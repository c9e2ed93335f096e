"""A Ray cluster of two nodes on this machine, of which one is the device.

    python -m tests.clustered

Prints its address, and ends with the standard input. Ray's warnings and processes stay in this
process.
"""

from __future__ import annotations

import sys
from typing import Any

from ray.cluster_utils import Cluster


def main() -> None:
    """Do so."""
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1, resources={"trpexport_device": 1})
        sys.stdout.write(f"{cluster.address}\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
