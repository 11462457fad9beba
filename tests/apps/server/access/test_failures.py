"""The limit on failed logins."""

from __future__ import annotations

from lib.server.access.failures import MOST_ADDRESSES, MOST_FAILURES, SECONDS, Failures


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_address_waits_after_too_many_failures_until_the_first_is_old() -> None:
    clock = Clock()
    failures = Failures(clock)
    for _ in range(MOST_FAILURES):
        assert failures.wait("10.0.0.1") == 0
        failures.add("10.0.0.1")
    assert failures.wait("10.0.0.1") == SECONDS
    assert failures.wait("10.0.0.2") == 0
    clock.now += SECONDS
    assert failures.wait("10.0.0.1") == 0


def test_addresses_of_one_ipv6_network_count_together() -> None:
    failures = Failures(Clock())
    for number in range(MOST_FAILURES):
        failures.add(f"2001:db8::{number:x}")
    assert failures.wait("2001:db8::ffff") > 0
    assert failures.wait("2001:db8:0:1::1") == 0


def test_ipv4_addresses_in_ipv6_form_count_one_by_one() -> None:
    failures = Failures(Clock())
    for _ in range(MOST_FAILURES):
        failures.add("::ffff:10.0.0.1")
    assert failures.wait("10.0.0.1") > 0
    assert failures.wait("::ffff:10.0.0.2") == 0


def test_the_memory_for_addresses_is_bounded() -> None:
    failures = Failures(Clock())
    for _ in range(MOST_FAILURES):
        failures.add("first")
    for number in range(MOST_ADDRESSES):
        failures.add(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert failures.wait("first") == 0
