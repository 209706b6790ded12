"""Names learned from answers: which flow gets which name, and for how long."""

from __future__ import annotations

import time

import numpy as np
import pytest

from exporter.address import pack_address
from exporter.batch import FlowBatch
from exporter.config.dns import LearnedNames as Settings
from exporter.enrich.end_facts import EndFacts
from exporter.enrich.host_fact import HostFact
from exporter.enrich.host_names import HostFacts, HostNames
from exporter.enrich.learned import LearnedFact, LearnedNames, Lesson

ALICE, BOB, CAROL = "10.0.0.1", "10.0.0.2", "10.0.0.3"
EDGE = "192.0.2.10"


class Named:
    """Names as flows get them; times are seconds from now."""

    def __init__(self, **settings: float) -> None:
        self.hosts = HostNames()
        self.learned = LearnedNames(self.hosts, Settings.model_validate(settings))
        learned = LearnedFact(self.learned, self.hosts)
        self.ends = EndFacts([learned, HostFact(self.hosts, learned)])
        self.now = time.time()

    def learn(
        self, name: str, *addresses: str, client: str = ALICE, ttl: float = 60, at: float = 0
    ) -> None:
        packed = tuple(map(pack_address, addresses))
        lesson = Lesson(name, pack_address(client), packed, ttl, self.now + at)
        self.learned.learn([lesson], self.now + at)

    def names(self, *flows: tuple[str, str], ended: float = 0) -> list[tuple[str, str]]:
        """``(src_host, dst_host)`` of each flow from one address to another."""
        batch = FlowBatch(
            len(flows),
            {
                "src_addr": addresses(*(source for source, _ in flows)),
                "dst_addr": addresses(*(destination for _, destination in flows)),
                "time_flow_end": np.full(len(flows), int((self.now + ended) * 1000), np.int64),
            },
        )
        self.ends.apply(batch)
        return [(row["src_host"], row["dst_host"]) for row in batch.rows()]


def addresses(*texts: str) -> np.ndarray:
    return np.frombuffer(b"".join(map(pack_address, texts)), np.uint8).reshape(-1, 16)


def test_both_directions_of_a_conversation_have_the_name() -> None:
    named = Named()
    named.learn("gcr.io", EDGE, "2001:db8::10")
    assert named.names((ALICE, EDGE), (EDGE, ALICE), (BOB, "2001:db8::10"), (BOB, ALICE)) == [
        ("", "gcr.io"), ("gcr.io", ""), ("", "gcr.io"), ("", "")
    ]  # fmt: skip


def test_a_name_is_known_from_the_next_batch_on() -> None:
    named = Named()
    assert named.names((ALICE, EDGE)) == [("", "")]
    named.learn("gcr.io", EDGE)
    assert named.names((ALICE, EDGE)) == [("", "gcr.io")]
    named.learn("quay.io", EDGE)
    assert named.names((ALICE, EDGE)) == [("", "quay.io")]


def test_each_client_sees_the_name_that_it_was_given() -> None:
    named = Named()
    named.learn("gcr.io", EDGE, client=ALICE)
    named.learn("maps.example", EDGE, client=BOB)
    flows = ((ALICE, EDGE), (BOB, EDGE), (EDGE, ALICE), (ALICE, EDGE), (CAROL, EDGE))
    assert named.names(*flows) == [
        ("", "gcr.io"), ("", "maps.example"), ("gcr.io", ""), ("", "gcr.io"),
        ("", "maps.example"),  # who did not ask: what anybody was told last
    ]  # fmt: skip


def test_configured_names_win_also_for_shared_addresses() -> None:
    named = Named()
    named.hosts.layer("static").update({pack_address(EDGE): HostFacts("registry")})
    named.learn("gcr.io", EDGE, client=ALICE)
    named.learn("maps.example", EDGE, client=BOB)
    assert named.names((ALICE, EDGE), (BOB, EDGE)) == [("", "registry"), ("", "registry")]


def test_flows_that_ended_long_before_the_answer_are_not_named_by_it() -> None:
    named = Named()
    named.learn("gcr.io", EDGE)
    assert named.names((ALICE, EDGE), ended=-60) == [("", "gcr.io")]
    assert named.names((ALICE, EDGE), ended=-3600) == [("", "")]


def test_a_client_keeps_the_name_of_its_time_when_others_are_told_another() -> None:
    named = Named()
    named.learn("gcr.io", EDGE, client=ALICE, at=-1800)
    named.learn("maps.example", EDGE, client=BOB)
    assert named.names((ALICE, EDGE), (BOB, EDGE), (CAROL, EDGE), ended=-1200) == [
        ("", "gcr.io"), ("", ""), ("", "")
    ]  # fmt: skip


def test_a_name_goes_when_it_holds_no_longer() -> None:
    named = Named(hold_seconds=100)
    named.learn("short.example", EDGE, ttl=5)
    named.learn("long.example", "192.0.2.11", ttl=500)
    named.learned.learn([], named.now + 99)
    flows = ((ALICE, EDGE), (ALICE, "192.0.2.11"))
    assert named.names(*flows) == [("", "short.example"), ("", "long.example")]
    named.learned.learn([], named.now + 101)
    assert named.names(*flows) == [("", ""), ("", "long.example")]
    named.learned.learn([], named.now + 501)
    assert named.names(*flows) == [("", ""), ("", "")]


def test_an_answer_again_prolongs_a_name() -> None:
    named = Named(hold_seconds=100)
    named.learn("gcr.io", EDGE)
    named.learn("gcr.io", EDGE, at=90)
    named.learned.learn([], named.now + 150)
    assert named.names((ALICE, EDGE)) == [("", "gcr.io")]


def test_memory_is_bounded_and_those_that_end_first_go() -> None:
    named = Named(max_addresses=10, hold_seconds=100)
    for number in range(10):
        named.learn(f"n{number}.example", f"192.0.2.{number}", at=number)
    named.learn("n0.example", "192.0.2.0", at=20)  # the oldest one is asked for again
    named.learn("new.example", EDGE, at=21)
    flows = [(ALICE, f"192.0.2.{number}") for number in range(3)] + [(ALICE, EDGE)]
    assert [name for _, name in named.names(*flows)] == [
        "n0.example", "", "n2.example", "new.example"
    ]  # fmt: skip
    samples = {m.name: m.samples[0].value for m in named.learned.collect()}
    assert samples["flow_exporter_dns_evicted_names"] == 1


def test_clients_that_are_remembered_are_bounded() -> None:
    named = Named(max_addresses=10)
    for number in range(100):
        named.learn("gcr.io", EDGE, client=f"10.1.0.{number}")
    samples = {m.name: m.samples[0].value for m in named.learned.collect()}
    assert samples["flow_exporter_dns_learned_clients"] == 20


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "::", "::1"])
def test_addresses_that_filters_answer_with_get_no_name(address: str) -> None:
    named = Named()
    named.learn("ads.example", address)
    assert named.hosts.snapshot() == {}


def test_many_shared_addresses_in_a_large_batch_are_named_right() -> None:
    named = Named()
    rng = np.random.default_rng(1)
    told = {}
    for number in range(2000):
        client, address = f"10.0.0.{number % 50}", f"192.0.2.{rng.integers(0, 40)}"
        told[client, address] = f"n{number}.example"
        named.learn(told[client, address], address, client=client)
    flows = [list(told)[row] for row in rng.integers(0, len(told), 5000)]
    assert named.names(*flows) == [("", told[flow]) for flow in flows]


def test_names_that_end_and_come_again_together_are_looked_at_again() -> None:
    hosts = HostNames()
    learned = LearnedNames(hosts, Settings(hold_seconds=10))
    fact = LearnedFact(learned, hosts)
    first, second = pack_address("192.0.2.1"), pack_address("192.0.2.2")
    client = bytes(16)
    learned.learn([Lesson("a", client, (first,), 1, 1000.0)], 1000.0)
    learned.learn([Lesson("b", client, (second,), 1, 1000.5)], 1000.5)
    fact.changed()
    addresses = np.frombuffer(first + second, np.uint8).reshape(-1, 16)
    before = fact.find(addresses).tolist()
    again = [Lesson("a", client, (first,), 1, 1011.0), Lesson("b", client, (second,), 1, 1011.0)]
    learned.learn(again, 1011.0)
    assert fact.find(addresses).tolist() != before
    assert set(fact.changed() or ()) == {first, second}
