"""What is known of addresses: names from several sources, kept from batch to batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.address import pack_address
from exporter.batch import FlowBatch
from exporter.config import Config
from exporter.enrich import NameSources
from exporter.enrich.address_cache import AddressCache
from exporter.enrich.host_names import SOURCES, HostFacts, HostNames
from exporter.key_index import KeyIndex


def packed(*texts):
    return np.frombuffer(b"".join(map(pack_address, texts)), np.uint8).reshape(-1, 16)


class Counting:
    """A fact that is the last octet of the address plus an offset, and what it was asked for."""

    def __init__(self):
        self.asked = []
        self.offset = 0
        self.stale = ()

    def find(self, addresses):
        self.asked += [row.tobytes() for row in addresses]
        return addresses[:, 15].astype(np.uint32) + self.offset

    def changed(self):
        stale, self.stale = self.stale, ()
        return stale

    def fill(self, batch, side, numbers):
        raise AssertionError("the cache fills nothing")


def values(cache, *columns):
    cache.refresh()
    numbers = cache.numbers([packed(*column) for column in columns])
    return [cache.fact(0)[codes].tolist() for codes in numbers]


def test_an_address_is_looked_up_once_for_all_batches_and_both_ends():
    fact = Counting()
    cache = AddressCache([fact], 100)
    first, second = ["10.0.0.1", "10.0.0.2", "2001:db8::3"], ["10.0.0.2", "2001:db8::3", "::4"]
    assert values(cache, first, second) == [[1, 2, 3], [2, 3, 4]]
    assert values(cache, second, [*first, "::10.0.0.9"]) == [[2, 3, 4], [1, 2, 3, 9]]
    assert len(fact.asked) == len(set(fact.asked)) == 5
    assert (len(cache), cache.misses, cache.restarts) == (5, 5, 0)


def test_addresses_whose_fact_changed_are_looked_up_again_and_only_those():
    fact = Counting()
    cache = AddressCache([fact], 100)
    values(cache, ["10.0.0.1", "10.0.0.2"])
    fact.asked.clear()
    fact.offset = 100
    fact.stale = [pack_address("10.0.0.2"), pack_address("10.0.0.2"), pack_address("10.0.0.7")]
    assert values(cache, ["10.0.0.1", "10.0.0.2"]) == [[1, 102]]
    assert fact.asked == [pack_address("10.0.0.2")]  # nobody asked for 10.0.0.7 yet
    fact.stale = None
    assert values(cache, ["10.0.0.1", "10.0.0.2"]) == [[101, 102]]


def test_a_full_cache_begins_anew_and_a_batch_larger_than_it_still_works():
    cache = AddressCache([Counting()], 3)
    assert values(cache, ["10.0.0.1", "10.0.0.2"]) == [[1, 2]]
    assert values(cache, ["10.0.0.2"], ["10.0.0.3", "10.0.0.4"]) == [[2], [3, 4]]
    assert (len(cache), cache.restarts) == (3, 1)
    many = [f"10.0.0.{n}" for n in range(10)]
    assert values(cache, many) == [list(range(10))]
    assert values(cache, ["10.0.0.2"]) == [[2]]
    assert len(cache) <= 10


def test_memory_stays_bounded_when_every_address_is_new():
    cache = AddressCache([Counting()], 10_000)
    for batch in range(30):
        rows = np.random.default_rng(batch).integers(0, 256, (2_000, 16), np.uint8)
        cache.numbers([rows])
    assert len(cache) <= 10_000
    assert cache.restarts >= 5
    assert cache.bytes < 2_000_000


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300)), max_size=200), max_size=6)
)
def test_an_index_gives_every_key_its_own_number(rounds):
    wide, narrow, known = KeyIndex(np.uint64, np.uint64), KeyIndex(np.uint32), {}

    def both(keys, numbers=None):
        columns = [np.array([k[i] for k in keys], np.uint64) for i in range(2)]
        joined = (columns[0] << np.uint64(20) | columns[1]).astype(np.uint32)
        for index, asked in ((wide, columns), (narrow, [joined])):
            if numbers is not None:
                index.add(asked, np.array(numbers, np.uint32))
            yield index.find(asked).tolist()

    for keys in rounds:
        for found in both(keys):
            assert found == [known.get(key, 0) for key in keys]
        new = list(dict.fromkeys(key for key in keys if key not in known))
        known |= {key: len(known) + n for n, key in enumerate(new, 1)}
        for found in both(new, [known[key] for key in new]):
            assert found == [known[key] for key in new]
        for found in both(keys):
            assert found == [known[key] for key in keys]
    assert len(wide) == len(narrow) == len(known)


def test_keys_that_are_alike_in_all_that_is_kept_of_them_are_told_apart():
    keys = np.arange(1, 101, dtype=np.uint64)
    keys |= keys << np.uint64(32)
    index = KeyIndex(np.uint64)
    # So that places and tags of these keys are the same, which nobody who does not know can do.
    index._factors = (np.uint64(1),)
    index.add([keys[:90]], np.arange(1, 91, dtype=np.uint32))
    assert index.find([keys]).tolist() == [*range(1, 91), *[0] * 10]


@pytest.mark.parametrize("kind", [np.uint32, np.uint64])
def test_an_index_numbers_new_keys_one_after_the_other(kind):
    index = KeyIndex(kind)
    numbers, new = index.find_or_add(np.array([7, 0, 7, 2**32 - 1], kind))
    assert (numbers.tolist(), new.tolist()) == ([1, 2, 1, 3], [7, 0, 2**32 - 1])
    numbers, new = index.find_or_add(np.array([0, 8, 7], kind))
    assert (numbers.tolist(), new.tolist()) == ([2, 4, 1], [8])
    assert index.find_or_add(np.array([8, 8], kind))[1].tolist() == []


A, B = pack_address("10.0.0.1"), pack_address("10.0.0.2")


def test_the_first_source_that_knows_a_field_gives_it():
    names = HostNames()
    layers = {source: names.layer(source) for source in SOURCES}
    layers["reverse_dns"].update({A: HostFacts("k122.example.net"), B: HostFacts("b")})
    layers["dns"].update({A: HostFacts("k122.example.com")})
    layers["targets"].update({A: HostFacts(role="vm", owner="interns")})
    assert names.find([A, B]) == [HostFacts("k122.example.com", "vm", "interns"), HostFacts("b")]
    layers["static"].replace({A: HostFacts("k122", role="build")})
    assert names.find([A]) == [HostFacts("k122", "build", "interns")]
    layers["static"].replace({})
    layers["targets"].remove([A, B])
    layers["dns"].remove([A])
    assert names.find([A]) == [HostFacts("k122.example.net")]
    layers["reverse_dns"].replace({})
    assert names.find([A, B]) == [None, None]
    assert names.snapshot() == {}


def test_only_what_changed_the_outcome_is_told():
    names = HostNames()
    static, dns = names.layer("static"), names.layer("dns")
    static.update({A: HostFacts("a", "r", "o")})
    seen, changed = names.changed_since(0)
    assert changed == [A]
    dns.update({A: HostFacts("other"), B: HostFacts("b")})
    dns.update({B: HostFacts("b")})
    seen, changed = names.changed_since(seen)
    assert changed == [B]
    assert names.changed_since(seen) == (seen, [])


def test_whoever_asks_too_late_is_told_to_look_at_everything():
    names = HostNames()
    layer = names.layer("dns")
    for start in range(0, 70_000, 10_000):
        layer.update({n.to_bytes(16): HostFacts("x") for n in range(start, start + 10_000)})
    assert names.changed_since(0)[1] is None
    assert len(names.changed_since(names.changes - 10)[1]) == 10


@pytest.mark.parametrize("source", SOURCES)
def test_a_name_that_is_learned_or_forgotten_shows_in_the_next_batch(source):
    sources = NameSources(Config())
    layer = sources.hosts.layer(source)

    def name_now():
        batch = FlowBatch(2, {"src_addr": packed("10.0.0.1", "10.0.0.2")})
        sources.enricher.enrich(batch)
        return [row["src_host"] for row in batch.rows()]

    assert name_now() == ["", ""]
    layer.update({A: HostFacts("gcr.io")})
    assert name_now() == ["gcr.io", ""]
    layer.update({A: HostFacts("registry"), B: HostFacts("gcr.io")})
    assert name_now() == ["registry", "gcr.io"]
    layer.remove([A])
    assert name_now() == ["", "gcr.io"]
