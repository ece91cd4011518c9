# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A kvpin-sim in each manner, one a file."""
import pytest

from sim_help import Sim


@pytest.fixture(scope="module")
def llama():
    with Sim("--slots", 4) as s:
        yield s


@pytest.fixture(scope="module")
def uvicorn():
    with Sim("--slots", 4, manner="uvicorn") as s:
        yield s


@pytest.fixture(scope="module", params=["llama", "uvicorn"])
def either(request):
    return request.getfixturevalue(request.param)
