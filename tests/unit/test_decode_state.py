"""What is kept over restarts, and the decoders' metrics."""

from __future__ import annotations

import json
import logging
import struct
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from exporter import config
from exporter.decode import Decoder, state
from exporter.decode.state import MAX_TOLD
from tests.support.netflow import (
    DEVICE,
    FLOW,
    batch,
    flow,
    netflow5,
    netflow9,
    options_template9,
    record5,
    set_of,
    template9,
)


def settings(path: Path) -> config.Decode:
    return config.Decode(template_file=str(path))


@pytest.mark.parametrize(("scope", "value"), [(1, 0), (5, 256)])  # the system, a template
def test_templates_and_rates_survive_a_restart(scope: int, value: int, tmp_path: Path) -> None:
    file = tmp_path / "templates.json"
    before = Decoder(settings(file), [])
    told = struct.pack("!II", value, 10)
    options = options_template9(300, [(scope, 4)], [(34, 4)]) + set_of(300, told)
    before.decode(batch(netflow9(template9(256, FLOW), options)))
    before.save()
    after = Decoder(settings(file), [])
    (found,) = after.decode(batch(netflow9(set_of(256, flow()), sequence=1)))
    (row,) = found.rows()
    assert (row["bytes"], row["sampling_source"]) == (3000, "options")
    assert [path.name for path in tmp_path.iterdir()] == ["templates.json"]


def test_where_fewer_devices_have_room_after_a_restart_the_silent_ones_go(tmp_path: Path) -> None:
    file = tmp_path / "templates.json"
    before = Decoder(settings(file), [])
    hour, now = 3_600_000, 1_700_000_000_000
    for sender, silent in ((1, 0), (2, 20), (3, 1), (4, 10)):
        datagram = netflow9(template9(256, FLOW))
        heard = now - silent * hour
        before.decode(batch(datagram, device=f"192.0.2.{sender}", received=heard))
    before.save()
    after = Decoder(config.Decode(template_file=str(file), max_devices=2), [])
    kept = {device.name for device in after.state.devices.values()}
    assert kept == {"192.0.2.1", "192.0.2.3"}


def test_what_went_missing_while_we_were_away_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "templates.json"
    before = Decoder(settings(file), [])
    before.decode(batch(netflow9(sequence=1)))
    before.save()
    after = Decoder(settings(file), [])
    after.decode(batch(netflow9(sequence=12)))
    after.decode(batch(netflow9(sequence=13), received=1_700_000_100_000))
    assert next(after.state.streams()).sequence.lost == 10


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"format": 99}', '{"format": 1, "streams": [{}]}',
     '{"format": 1, "streams": [{"device": "x"}]}', "\udcff"],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_reported(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "templates.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with caplog.at_level(logging.WARNING):
        decoder = Decoder(settings(file), [])
    assert str(file) in caplog.text
    assert sum(map(len, decoder.decode(batch(netflow5(record5()))))) == 1


def test_a_saved_template_keeps_to_the_limits(tmp_path: Path) -> None:
    file = tmp_path / "templates.json"
    before = Decoder(settings(file), [])
    before.decode(batch(netflow9(*(template9(n, FLOW) for n in range(256, 266)))))
    before.save()
    tight = config.Decode(template_file=str(file), max_templates_per_device=3)
    after = Decoder(tight, [])
    assert after.state.fields == 3 * len(FLOW)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "templates.json"
    decoder = Decoder(settings(file), [])
    decoder.save()
    before = file.read_text()

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(json, "dump", fail)
    with pytest.raises(OSError, match="disk full"):
        decoder.save()
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]


def metrics(decoder: Decoder) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(decoder.stats)
    lines = generate_latest(registry).decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def test_names_keep_to_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MAX_NAMES_PER_DEVICE", 3)
    monkeypatch.setattr(state, "MAX_NAMES", 5)
    decoder = Decoder(config.Decode(), [])
    template = options_template9(300, [(2, 4)], [(82, 8)])

    def name(device: str, text: bytes) -> list[str]:
        records = b"".join(struct.pack("!I8s", number, text) for number in range(1, 5))
        decoder.decode(batch(netflow9(template, set_of(300, records)), device=device))
        flows = [(8, 4), (10, 4)]
        data = b"".join(bytes(4) + struct.pack("!I", number) for number in range(1, 5))
        (found,) = decoder.decode(
            batch(netflow9(template9(256, flows), set_of(256, data), sequence=1), device=device)
        )
        return [row["in_if_name"] for row in found.rows()]

    assert name("192.0.2.1", b"eth") == ["eth", "eth", "eth", ""]
    assert name("192.0.2.2", b"eth") == ["eth", "eth", "", ""]
    assert decoder.state.names == 5


def test_metrics_by_device_and_source() -> None:
    decoder = Decoder(config.Decode(), [config.Device(address=DEVICE, name="edge1")])
    datagram = netflow9(template9(256, FLOW), set_of(256, flow() * 2), set_of(999, bytes(20)))
    decoder.decode(batch(datagram, netflow5(record5()), b"\0\1\2\3", datagram))
    found = metrics(decoder)
    v9 = '{device="edge1",source="netflow9"}'
    assert found[f"flow_exporter_received_packets_total{v9}"] == 2
    assert found[f"flow_exporter_received_bytes_total{v9}"] == 2 * len(datagram)
    assert found[f"flow_exporter_decoded_records_total{v9}"] == 2
    assert found[f"flow_exporter_duplicate_packets_total{v9}"] == 1
    assert found[f"flow_exporter_waiting_sets{v9}"] == 1
    assert found['flow_exporter_decoded_records_total{device="edge1",source="netflow5"}'] == 1
    assert found['flow_exporter_unknown_sampling_total{device="edge1"}'] == 3
    assert found['flow_exporter_templates{device="edge1"}'] == 1
    assert found["flow_exporter_devices"] == 1
    assert found['flow_exporter_device_configured{device="edge1"}'] == 1
    assert sum(v for n, v in found.items() if n.startswith("flow_exporter_decode_errors")) == 1


def test_metrics_tell_who_is_configured_heard_of_or_not() -> None:
    named = [config.Device(address="192.0.2.1", name="edge1"), config.Device(address="192.0.2.2")]
    decoder = Decoder(config.Decode(), named)
    decoder.decode(batch(netflow5(record5()), device="192.0.2.9"))

    def told() -> set[str]:
        prefix = "flow_exporter_device_configured"
        return {name.removeprefix(prefix) for name in metrics(decoder) if name.startswith(prefix)}

    assert told() == {'{device="edge1"}', '{device="192.0.2.2"}'}
    decoder.configure([config.Device(address="192.0.2.9", name="late")])
    decoder.decode(batch(netflow5(record5()), device="192.0.2.9"))
    assert told() == {'{device="late"}'}


def test_addresses_of_one_name_are_counted_together() -> None:
    named = [config.Device(address=f"192.0.2.{n}", name="edge1") for n in (1, 2)]
    decoder = Decoder(config.Decode(), named)
    decoder.decode(batch(*[netflow5(record5())] * 2, device=["192.0.2.1", "192.0.2.2"]))
    lines = metrics(decoder)
    assert lines['flow_exporter_unknown_sampling_total{device="edge1"}'] == 2
    assert lines['flow_exporter_decoded_records_total{device="edge1",source="netflow5"}'] == 2
    for family in decoder.stats.collect():
        labels = [tuple(sample.labels.items()) for sample in family.samples]
        assert len(labels) == len(set(labels)), family.name


def test_errors_of_devices_that_are_not_kept_are_counted_together() -> None:
    decoder = Decoder(config.Decode(max_devices=1), [])
    for number in range(1, 6):
        decoder.decode(batch(netflow9(), device=f"192.0.2.{number}"))
    found = metrics(decoder)
    label = '{device="other",reason="too_many_devices"}'
    assert found[f"flow_exporter_decode_errors_total{label}"] == 4


def test_forged_senders_have_one_series_together_beyond_a_bound() -> None:
    number, later = MAX_TOLD + 20, 1_700_000_700_000
    named = config.Device(address="203.0.113.1", name="edge1")
    decoder = Decoder(config.Decode(max_devices=number), [named])
    for sender in range(number):
        decoder.decode(batch(netflow9(sequence=1), device=f"198.51.{sender >> 8}.{sender & 255}"))
    decoder.decode(batch(netflow9(sequence=1), device="203.0.113.1"))

    def received() -> dict[str, float]:
        prefix = "flow_exporter_received_packets_total"
        return {name: n for name, n in metrics(decoder).items() if name.startswith(prefix)}

    others = 'flow_exporter_received_packets_total{device="other",source="netflow9"}'
    assert received()[others] == 20
    assert received()['flow_exporter_received_packets_total{device="edge1",source="netflow9"}'] == 1
    assert len(received()) == MAX_TOLD + 2
    assert metrics(decoder)["flow_exporter_devices"] == number + 1
    # All make room for one after the other, those without series of their own too.
    for sender in range(number):
        datagram = batch(
            netflow9(sequence=1), device=f"100.64.{sender >> 8}.{sender & 255}", received=later
        )
        decoder.decode(datagram)
    assert received()[others] == 40
    assert len(received()) == MAX_TOLD + 2
    # Who gets a series of its own leaves what was counted where it was: totals do not go back.
    before = received()
    decoder.configure([named, config.Device(address="100.64.3.251", name="late")])
    decoder.decode(batch(netflow9(sequence=2), device="100.64.3.251", received=later))
    late = 'flow_exporter_received_packets_total{device="late",source="netflow9"}'
    assert received() == before | {late: 1}


def test_totals_never_go_back_while_senders_make_room_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "MAX_TOLD", 0)
    number, turns = 100, 5
    decoder = Decoder(config.Decode(max_devices=number), [])

    def send(turn: int) -> None:
        for sender in range(number):
            now = 1_700_000_000_000 + turn * 700_000
            decoder.decode(batch(netflow9(), device=f"10.0.{turn}.{sender}", received=now))

    def others() -> list[float]:
        families = [each for each in decoder.stats.collect() if each.type == "counter"]
        return [sum(sample.value for sample in family.samples) for family in families]

    send(0)
    seen: list[list[float]] = []
    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        sending = threading.Thread(target=lambda: [send(turn) for turn in range(1, turns)])
        sending.start()
        while sending.is_alive():
            seen.append(others())
        sending.join()
    finally:
        sys.setswitchinterval(often)
    for before, after in pairwise(seen):
        assert all(total <= later for total, later in zip(before, after, strict=True))
    assert others()[0] == turns * number


def test_every_metric_has_a_help_text() -> None:
    decoder = Decoder(config.Decode(), [])
    decoder.decode(batch(netflow5(record5())))
    for family in decoder.stats.collect():
        assert family.documentation.endswith(".")
        assert family.name.startswith("flow_exporter_")


def test_forged_senders_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    decoder = Decoder(config.Decode(), [])
    for number in range(400):
        broken = [netflow5(record5())[:30], b"\0\x63" + bytes(30)]
        decoder.decode(batch(*broken, device=[f"198.51.{number >> 8}.{number & 255}"] * 2))
    assert 50 < len(caplog.records) <= 100


def test_a_fault_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    decoder = Decoder(config.Decode(), [])
    with caplog.at_level(logging.WARNING):
        for number in range(50):
            decoder.decode(batch(netflow9(struct.pack("!HH", 256, 2), sequence=number)))
    assert len(caplog.records) == 1
    assert DEVICE in caplog.text
    assert "malformed_set" in caplog.text


def test_two_devices_that_overwrite_each_others_templates_are_told_of() -> None:
    decoder = Decoder(config.Decode(), [])
    one, other = template9(256, FLOW), template9(256, [*FLOW, (34, 4)])
    errors = []
    for sequence, template in enumerate((one, one, other, other, one, one, other)):
        decoder.decode(batch(netflow9(template, sequence=sequence)))
        (device,) = decoder.state.devices.values()
        errors.append(device.errors["template_clash"])
    assert errors == [0, 0, 0, 0, 1, 1, 2]
