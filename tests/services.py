"""Where every service must be there (TESTS_NEED_SERVICES=1, as in .ci/run), a test that misses one fails."""

import os
import re
from collections.abc import Iterator

import pytest

NEEDED = re.compile(r"Redis|PostgreSQL|psycopg|Node|tuspy|tritonclient|no syft|Cog \d|replicate|Pylon client")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Iterator[None]:
    """Turns a skip for want of a service into a failure."""
    report: pytest.TestReport = yield  # type: ignore[misc]
    if os.environ.get("TESTS_NEED_SERVICES") and is_for_want_of_a_service(report):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} must not be skipped here: {report.longrepr}"
    return report  # type: ignore[return-value]


def is_for_want_of_a_service(report: pytest.TestReport) -> bool:
    return report.skipped and not hasattr(report, "wasxfail") and bool(NEEDED.search(str(report.longrepr)))
