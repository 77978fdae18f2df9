"""One server for each mode and module; tests that need other limits start their own."""

import pytest

from tests.integration.wire.harness import running


@pytest.fixture(scope="session", params=["eventlet", "threading"])
def server(request, tmp_path_factory):
    with running(request.param, tmp_path_factory.mktemp("wire"), stall_seconds=1.0) as running_server:
        yield running_server


@pytest.fixture(params=["eventlet", "threading"])
def tight_server(request, tmp_path):
    """Few connections, and little patience with those that join nothing."""
    with running(request.param, tmp_path, connections=6, pending=3, join_seconds=0.3) as running_server:
        yield running_server
