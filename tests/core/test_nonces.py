"""The memory nonce store: bounded, expiring and thread-safe; and the keys of nonces."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from envoyou_core import ConfigurationError
from envoyou_core.nonces import NONCE_LIFETIME, NonceStore, nonce_key
from envoyou_core.nonces.memory import MemoryNonceStore
from tests.inbox.acts import HandClock


@pytest.fixture
def clock():
    return HandClock(1000.0)


def test_it_is_a_nonce_store_that_does_not_block():
    assert isinstance(MemoryNonceStore(), NonceStore)
    assert MemoryNonceStore().blocking is False


def test_a_nonce_lives_for_the_guides_ten_minutes():
    assert NONCE_LIFETIME == 600


def test_a_nonce_is_bound_until_it_expires(clock):
    store = MemoryNonceStore(clock=clock)
    assert store.lookup("n") is None
    store.bind("n", "evt_1", 600)
    assert store.lookup("n") == "evt_1"
    assert store.lookup("other") is None
    clock.advance(599.999)
    assert store.lookup("n") == "evt_1"
    clock.advance(0.001)
    assert store.lookup("n") is None


def test_a_bound_nonce_is_not_bound_again(clock):
    store = MemoryNonceStore(clock=clock)
    store.bind("n", "evt_1", 600)
    clock.advance(599)
    store.bind("n", "evt_2", 600)
    assert store.lookup("n") == "evt_1"
    clock.advance(1)
    assert store.lookup("n") is None


def test_an_expired_nonce_can_be_bound_again(clock):
    store = MemoryNonceStore(clock=clock)
    store.bind("n", "evt_1", 600)
    clock.advance(600)
    store.bind("n", "evt_2", 600)
    assert store.lookup("n") == "evt_2"


def test_a_nonce_that_expired_in_the_older_generation_can_be_bound_again(clock):
    store = MemoryNonceStore(max_entries=2, clock=clock)
    store.bind("n", "evt_1", 10)
    store.bind("filler", "evt_x", 10)
    clock.advance(10)
    store.bind("n", "evt_2", 600)
    assert store.lookup("n") == "evt_2"


def test_the_store_is_bounded_and_evicts_the_oldest_first(clock):
    store = MemoryNonceStore(max_entries=10, clock=clock)
    for number in range(1000):
        store.bind(f"n{number}", f"evt_{number}", 600)
        assert len(store._younger) + len(store._older) <= 10
        for recent in range(max(0, number - 4), number + 1):
            assert store.lookup(f"n{recent}") == f"evt_{recent}"
    assert store.lookup("n989") is None


@pytest.mark.parametrize("bound", [1, 0, -5])
def test_a_limit_below_one_is_refused(bound):
    with pytest.raises(ConfigurationError, match="at least 2"):
        MemoryNonceStore(max_entries=bound)


def test_concurrent_threads_agree_on_the_first_binding(clock):
    store = MemoryNonceStore(max_entries=100_000, clock=clock)
    start = threading.Barrier(8)

    def bind(worker):
        start.wait(20)
        seen = []
        for number in range(500):
            store.bind(f"n{number}", f"evt_{worker}", 600)
            seen.append(store.lookup(f"n{number}"))
        return seen

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(bind, range(8)))
    for number in range(500):
        assert len({seen[number] for seen in answers}) == 1


# Keys


def test_keys_differ_by_name_tenant_and_nonce():
    parts = [("a", "b", b"c"), ("ab", "", b"c"), ("a", "bc", b""), ("", "a", b"bc"), ("a", "b", b"C"), ("", "", b"")]
    keys = [nonce_key(*part) for part in parts]
    assert len(set(keys)) == len(parts)
    assert nonce_key("a", "b", b"c") == keys[0]


def test_all_keys_have_the_same_length():
    lengths = {
        len(nonce_key("default", tenant, nonce))
        for tenant, nonce in itertools.product(("", "é" * 255), (b"", b"x" * 10**6))
    }
    assert lengths == {32}
