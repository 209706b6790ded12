"""``flow-exporter decode``: flows as JSON, faults by file and offset, exit codes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from exporter.cli import app
from tests.support.frames import ethernet, ipv4, pcap, udp
from tests.support.netflow import (
    FLOW,
    NOW,
    FieldSpec,
    flow,
    ipfix,
    netflow5,
    netflow9,
    options_template9,
    options_template10,
    record5,
    set_of,
    template9,
    template10,
)

runner = CliRunner()


def write(folder: Path, **datagrams: bytes) -> list[Path]:
    paths = []
    for name, content in datagrams.items():
        path = folder / f"{name}.dat"
        path.write_bytes(content)
        paths.append(path)
    return paths


def decode(*arguments: object) -> Result:
    return runner.invoke(app, ["decode", *map(str, arguments)])


def test_a_flow_is_a_json_object_a_line(tmp_path: Path) -> None:
    (path,) = write(tmp_path, v5=netflow5(record5(), record5(octets=5)))
    result = decode(path)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["bytes"] for row in rows] == [300, 5]
    assert rows[0]["src_addr"] == "10.0.0.1"
    assert result.exit_code == 0
    assert result.stderr == ""


def test_templates_that_change_to_and_fro_are_told_of_and_no_failure(tmp_path: Path) -> None:
    one, other = template9(256, FLOW), template9(256, [*FLOW, (34, 4)])
    turns = [netflow9(each, sequence=number) for number, each in enumerate((one, other, one))]
    result = decode(*write(tmp_path, **{f"t{number}": each for number, each in enumerate(turns)}))
    assert result.exit_code == 0
    assert "template_clash: 1 times" in result.stderr


def test_files_are_one_stream_from_one_device(tmp_path: Path) -> None:
    paths = write(tmp_path, template=ipfix(template10(256, FLOW)), data=ipfix(set_of(256, flow())))
    assert len(decode(*paths).stdout.splitlines()) == 1
    assert len(decode(*reversed(paths)).stdout.splitlines()) == 1


def test_a_raw_datagram_is_received_when_it_was_exported(tmp_path: Path) -> None:
    (path,) = write(tmp_path, v9=netflow9(template9(256, FLOW), set_of(256, flow()), seconds=NOW))
    row = json.loads(decode(path).stdout)
    assert row["time_received"] == "2023-11-14T22:13:20.000Z"


def test_options_records_are_told_on_demand(tmp_path: Path) -> None:
    """What is known of the fields of a record is shown as it is meant, all else in hexadecimal."""
    sampler = options_template9(300, [(1, 4)], [(48, 1), (50, 4), (84, 8)])
    told = struct.pack("!IBI8s", 9, 2, 1000, b"edge")
    application = options_template9(301, [(2, 4)], [(95, 4), (96, 8), (130, 4), (40000, 2)])
    named = struct.pack("!IBBBB8s4sH", 7, 13, 0, 1, 0xAF, b"youtube", b"\xc0\0\x02\x01", 0xABCD)
    data = template9(256, FLOW) + set_of(256, flow())
    sets = (sampler, set_of(300, told), application, set_of(301, named), data)
    (path,) = write(tmp_path, v9=netflow9(*sets, seconds=NOW, domain=3))
    assert [r["bytes"] for r in map(json.loads, decode(path).stdout.splitlines())] == [300_000]
    result = decode("--options", path)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows[:2] == [
        {
            "time_received": "2023-11-14T22:13:20.000Z", "device_addr": "::",
            "observation_domain": 3, "source": "netflow9", "template": 300,
            "options": {
                "scopeSystem": 9, "samplerId": 2, "samplerRandomInterval": 1000,
                "samplerName": "edge",
            },
        },
        {
            "time_received": "2023-11-14T22:13:20.000Z", "device_addr": "::",
            "observation_domain": 3, "source": "netflow9", "template": 301,
            "options": {
                "scopeInterface": 7, "applicationId": "13:431", "applicationName": "youtube",
                "exporterIPv4Address": "192.0.2.1", "0.40000": "abcd",
            },
        },
    ]  # fmt: skip
    assert [row["bytes"] for row in rows[2:]] == [300_000]
    assert result.exit_code == 0


def test_options_records_of_ipfix_come_without_flows_too(tmp_path: Path) -> None:
    fields: list[FieldSpec] = [(149, 4), (160, 8), (311, 8), (41, 8), (9, 12, 2)]
    record = struct.pack("!IQdQH", 5, NOW * 1000, 0.25, 17, 0x0102)
    senseless = struct.pack("!IQdQH", 6, 2**64 - 1, float("nan"), 17, 0)
    datagram = ipfix(options_template10(300, 1, fields), set_of(300, record + senseless))
    row, odd = map(
        json.loads, decode("--options", *write(tmp_path, a=datagram)).stdout.splitlines()
    )
    assert odd["options"]["systemInitTimeMilliseconds"] == "f" * 16
    assert odd["options"]["samplingProbability"] == "7ff8000000000000"
    assert row["options"] == {
        "observationDomainId": 5, "systemInitTimeMilliseconds": "2023-11-14T22:13:20.000Z",
        "samplingProbability": 0.25, "exportedMessageTotalCount": 17, "9.12": "0102",
    }  # fmt: skip


def test_a_file_of_ipfix_is_a_row_of_messages(tmp_path: Path) -> None:
    first = ipfix(template10(256, FLOW), set_of(256, flow()))
    second = ipfix(set_of(256, flow(octets=5)), set_of(9, b""), sequence=1)
    path = tmp_path / "flows.ipfix"
    path.write_bytes(first + second)
    result = decode(path)
    assert [r["bytes"] for r in map(json.loads, result.stdout.splitlines())] == [300, 5]
    assert result.stderr == f"{path}: offset {len(first) + len(second)}: reserved_set\n"


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        (b"\0\x0a\0\x20" + bytes(20), "message lacks its last 8 bytes"),
        (b"\0\x0a\0\x0f" + bytes(20), "impossible length of an IPFIX message"),
        (bytes(20), "no IPFIX message"),
        (b"\0\x0a", "no IPFIX message"),
    ],
)
def test_what_is_wrong_in_a_file_of_ipfix_is_told(tmp_path: Path, rest: bytes, reason: str) -> None:
    path = tmp_path / "flows.ipfix"
    path.write_bytes(ipfix(template10(256, FLOW), set_of(256, flow())) + rest)
    result = decode(path)
    assert len(result.stdout.splitlines()) == 1
    assert reason in result.stderr
    assert result.exit_code == 1


def test_a_fault_names_file_and_offset(tmp_path: Path) -> None:
    good = netflow9(template9(256, FLOW), set_of(256, flow()))
    paths = write(tmp_path, bad=good + struct.pack("!HH", 256, 900) + b"abc", noise=b"\0\1abc")
    result = decode(*paths)
    assert len(result.stdout.splitlines()) == 1
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{paths[0]}: offset {len(good)}: malformed_set",
        f"{paths[1]}: offset 0: unknown_version",
    ]


def test_records_whose_template_never_came_are_reported(tmp_path: Path) -> None:
    (path,) = write(tmp_path, data=netflow9(set_of(300, bytes(40)), domain=5))
    result = decode(path)
    assert result.stdout == ""
    assert result.exit_code == 1
    assert "domain 5: template 300 never came; sets of records not decoded: 1" in result.stderr


def test_options_are_no_flows(tmp_path: Path) -> None:
    options = options_template9(300, [(1, 4)], [(34, 4)]) + set_of(300, bytes(8))
    (path,) = write(tmp_path, options=netflow9(options))
    result = decode(path)
    assert (result.stdout, result.exit_code) == ("", 0)


def test_a_capture_keeps_senders_and_times(tmp_path: Path) -> None:
    path = tmp_path / "flows.pcap"
    payload = udp(netflow5(record5()))
    path.write_bytes(pcap([ethernet(ipv4(payload, f"192.0.2.{n}")) for n in (7, 8)]))
    rows = [json.loads(line) for line in decode(path).stdout.splitlines()]
    assert [row["device_addr"] for row in rows] == ["192.0.2.7", "192.0.2.8"]


@pytest.mark.parametrize("content", [None, b""])
def test_a_file_that_cannot_be_read_does_not_stop_the_others(
    tmp_path: Path, content: bytes | None
) -> None:
    missing = tmp_path / "missing.dat"
    if content is not None:
        missing.write_bytes(content)
    (good,) = write(tmp_path, good=netflow5(record5()))
    result = decode(missing, good)
    assert len(result.stdout.splitlines()) == 1
    assert result.exit_code == 1
    assert str(missing) in result.stderr


def test_the_configuration_names_rates_and_elements(tmp_path: Path) -> None:
    file = tmp_path / "flow-exporter.yaml"
    file.write_text(
        'devices: [{address: "::", sampling_rate: 10}]\n'
        "decode: {elements: [{id: 1001, column: tls_sni}]}\n"
    )
    fields = [*FLOW, (1001, 8)]
    datagram = netflow9(template9(256, fields), set_of(256, flow() + b"a.net\0\0\0"))
    (path,) = write(tmp_path, v9=datagram)
    row = json.loads(decode("--config", file, path).stdout)
    assert (row["bytes"], row["tls_sni"]) == (3000, "a.net")
