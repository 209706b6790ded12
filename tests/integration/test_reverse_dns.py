"""Reverse DNS against real unbound, and against resolvers that are not there."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import numpy as np
import pytest

from exporter.address import pack_address
from exporter.batch import FlowBatch
from exporter.config.dns import ReverseDns
from exporter.enrich import reverse as module
from exporter.enrich.end_facts import EndFacts
from exporter.enrich.host_fact import HostFact
from exporter.enrich.host_names import HostFacts, HostNames
from exporter.enrich.reverse import ReverseFact, ReverseNames
from tests.support.resolvers import unbound
from tests.support.stack import free_port, until

PRINTER, NAMELESS, PUBLIC = "10.1.2.5", "10.1.2.6", "198.51.100.7"


class Naming:
    """Flows that get names, and the thread that asks for them."""

    def __init__(self, port: int, **settings: Any) -> None:
        self.hosts = HostNames()
        given = {"enabled": True, "servers": ["127.0.0.1"], "port": port, "timeout_seconds": 20.0}
        self.reverse = ReverseNames(self.hosts, ReverseDns.model_validate(given | settings))
        self.ends = EndFacts([HostFact(self.hosts), ReverseFact(self.reverse, self.hosts)])

    def names(self, *destinations: str) -> list[str]:
        packed = b"".join(map(pack_address, destinations))
        columns: dict[str, Any] = {"dst_addr": np.frombuffer(packed, np.uint8).reshape(-1, 16)}
        batch = FlowBatch(len(destinations), columns)
        self.ends.apply(batch)
        return [row["dst_host"] for row in batch.rows()]

    def metric(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for metric in self.reverse.collect()
            for sample in metric.samples
            if sample.name == f"flow_exporter_reverse_dns_{name}"
            and labels.items() <= sample.labels.items()
        )


@contextmanager
def naming(port: int, **settings: Any) -> Iterator[Naming]:
    found = Naming(port, **settings)
    found.reverse.start()
    try:
        yield found
    finally:
        found.reverse.stop()


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with unbound(tmp_path_factory.mktemp("unbound")) as running:
        yield running.port


def asked(naming: Naming) -> float:
    return naming.metric("queries_total")


def test_addresses_in_traffic_get_their_names_after_a_while(resolver: int) -> None:
    with naming(resolver) as found:
        assert found.names(PRINTER, NAMELESS, PUBLIC) == ["", "", ""]
        until("answers", 20, lambda: asked(found) == 2)
        assert found.names(PRINTER, NAMELESS, PUBLIC) == ["printer.office.example", "", ""]
        assert found.metric("queries_total", result="name") == 1
        assert found.metric("queries_total", result="no_name") == 1
        assert found.metric("cached_addresses") == 2


def test_a_fault_of_ours_is_counted_and_ends_nothing(
    resolver: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with naming(resolver) as found:

        def broken(*_: object) -> None:
            raise RuntimeError("made up")

        with monkeypatch.context() as fault:
            fault.setattr(found.reverse, "_expire", broken)
            until("a fault", 20, lambda: found.metric("errors_total"))
        with monkeypatch.context() as fault:
            fault.setattr(found.reverse, "_keep", broken)
            before = found.metric("errors_total")
            found.names(NAMELESS)
            until("a fault", 20, lambda: found.metric("errors_total") > before)
        found.names(PRINTER)
        until("a name", 20, lambda: found.names(PRINTER) == ["printer.office.example"])


def test_an_answer_is_kept_also_that_there_is_no_name(resolver: int) -> None:
    with naming(resolver, queries_per_second=1000) as found:
        found.names(PRINTER, NAMELESS)
        until("answers", 20, lambda: asked(found) == 2)
        for _ in range(20):
            found.names(PRINTER, NAMELESS)
            time.sleep(0.02)
        assert asked(found) == 2


def test_answers_are_kept_when_the_clock_is_set_ahead(
    resolver: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with naming(resolver, queries_per_second=1000) as found:
        found.names(PRINTER, NAMELESS)
        until("answers", 20, lambda: asked(found) == 2)
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 30 * 86400)
        found.names("10.1.2.7")
        until("another answer", 20, lambda: asked(found) == 3)
        assert found.names(PRINTER) == ["printer.office.example"]
        assert found.metric("cached_addresses") == 3


def test_an_answer_that_is_too_old_is_asked_for_again_while_it_is_used(resolver: int) -> None:
    with naming(resolver, negative_seconds=1, queries_per_second=1000) as found:

        def asked_three_times() -> bool:
            found.names(NAMELESS)
            return asked(found) >= 3

        until("questions", 20, asked_three_times)


def test_addresses_that_have_a_name_are_not_asked_for(resolver: int) -> None:
    with naming(resolver) as found:
        found.hosts.layer("static").update({pack_address(PRINTER): HostFacts("prn-1")})
        found.names(PRINTER, NAMELESS)
        until("answer", 20, lambda: asked(found) == 1)
        assert found.metric("queries_total", result="no_name") == 1
        assert found.names(PRINTER) == ["prn-1"]


def test_answers_that_are_kept_are_bounded(resolver: int) -> None:
    with naming(resolver, max_addresses=5, queries_per_second=1000) as found:
        found.names(*(f"10.1.3.{number}" for number in range(40)))
        until("answers", 20, lambda: asked(found) == 40)
        assert found.metric("cached_addresses") == 5


def test_the_rate_is_polite(resolver: int) -> None:
    with naming(resolver, queries_per_second=10) as found:
        began = time.monotonic()
        found.names(*(f"10.1.3.{number}" for number in range(200)))
        until("answers", 20, lambda: asked(found) >= 10)
        assert asked(found) <= 10 * (time.monotonic() - began) + 1


def test_a_dead_resolver_slows_nothing_and_is_asked_less_and_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_FIRST_PAUSE_SECONDS", "_LONGEST_PAUSE_SECONDS"):
        monkeypatch.setattr(module, name, 3600.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        with naming(port, timeout_seconds=0.2, queries_per_second=1000) as found:
            addresses = [f"10.{n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(5000)]
            began = time.monotonic()
            for _ in range(20):
                assert found.names(*addresses) == [""] * 5000
            took = time.monotonic() - began
            until("failures", 20, lambda: found.metric("queries_total", result="failure") >= 5)
            assert found.metric("waiting_addresses") <= 1000
            # All that were on their way have failed, and nobody asks in the pause.
            until("end of these", 20, lambda: found.reverse._pause() > 0)
            before = until("nobody to ask", 20, lambda: not found.reverse._asking and asked(found))
            time.sleep(0.7)
            assert asked(found) <= before + 1
        assert took < 60  # 100,000 flows; a query that is waited for takes 0.2 s


def test_nobody_at_the_port_is_a_failure_that_passes(resolver: int, tmp_path: Path) -> None:
    with naming(free_port(socket.SOCK_DGRAM), timeout_seconds=0.3) as found:
        assert found.names(PRINTER) == [""]
        until("failure", 20, lambda: found.metric("queries_total", result="failure") == 1)
        assert found.names(PRINTER) == [""]


def test_an_address_whose_answer_takes_long_is_asked_for_once_and_again_when_it_is_too_old() -> (
    None
):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as slow:
        slow.bind(("127.0.0.1", 0))
        slow.settimeout(20)
        settings = {"negative_seconds": 1, "queries_per_second": 1000, "timeout_seconds": 20}
        with naming(slow.getsockname()[1], **settings) as found:
            found.names(NAMELESS)
            questions = [slow.recvfrom(512)]
            for _ in range(10):
                found.names(NAMELESS)
                until("asked", 20, lambda: found.metric("waiting_addresses") == 0)
            slow.settimeout(0.3)
            with suppress(TimeoutError):
                while True:
                    questions.append(slow.recvfrom(512))
            for wire, peer in questions:
                answer = dns.message.make_response(dns.message.from_wire(wire))
                answer.set_rcode(dns.rcode.NXDOMAIN)
                slow.sendto(answer.to_wire(), peer)
            assert len(questions) == 1
            until("answer", 20, lambda: asked(found) == 1)

            def asked_again() -> bool:
                found.names(NAMELESS)
                with suppress(TimeoutError):
                    return bool(slow.recv(512))
                return False

            until("question", 20, asked_again)
