"""Loops of random networks take the steps of the closed backward; many more are drawn by `python -m tests.loop.networks`."""

from hypothesis import HealthCheck, given, settings

from tests.loop.networks import Network, compared, networks


@settings(max_examples=8, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_a_loop_takes_the_steps_of_single_steps(network: Network) -> None:
    assert compared(network) in ("the same", "not finite")
