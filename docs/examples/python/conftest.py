"""The fixtures of these tests. Copy this file and cairn.py beside your own tests."""

import pytest

from cairn import Testnet


@pytest.fixture(scope="session")
def net():
    """One network for all tests of a run: a start takes about a second. A test that cuts links
    must heal them."""
    with Testnet(nodes=4) as running:
        yield running


@pytest.fixture
def healed(net):
    """The network of the run, without cuts after the test, however it ends."""
    yield net
    net.heal()
