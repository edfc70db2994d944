"""A Ray that several tests share: starting one takes seconds."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def running_ray():
    """Two processors of this machine; it is there until the last test of the file has run."""
    import os

    from layerscope.surveying.running.ray_actors import ALONE, QUIET

    os.environ.update(QUIET | ALONE)
    import ray

    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    yield ray
    ray.shutdown()
