"""The daemon and the images, made once for all tests of this folder, which run in one process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import daemon
from tests.deploy.daemon import Docker

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark this folder's tests, and keep them together; building images takes minutes."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.xdist_group("docker"))
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """A daemon that answers."""
    with daemon.running() as found:
        yield found


@pytest.fixture(scope="session")
def images(docker: Docker) -> Docker:
    """The daemon with the images `funicular` and `funicular-kafka`, built of this work tree."""
    able = os.geteuid() == 0 and shutil.which("debootstrap") is not None
    daemon.needed(condition=able, why="no debootstrap, or not root")
    docker.run("deploy/images", timeout_s=380.0)
    return docker
