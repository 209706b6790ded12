"""policies.yaml: what is taken, and what is refused with file, line and reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from exporter.config import ConfigError
from exporter.policies.filter import FUNCTIONS, check_filter
from exporter.policies.lists import PolicyList
from exporter.policies.measures import MEASURES
from exporter.policies.model import (
    Bound,
    Bounds,
    Breach,
    Policy,
    PolicySet,
    Quota,
    load_policies,
)
from exporter.policies.query import policy_query
from exporter.resources import resource
from exporter.schema import BY_NAME

SOUND = """\
max_series: 1000
policies:
  - name: first
    dimensions: [dst_addr]
    measure: bits_per_second
    window: 5m
    bounds:
      above: {static: 10, baseline_ratio: 2}
  - name: second
    dimensions: [service]
    measure: flows_per_second
    bounds:
      below: {static: 1}
"""


def load(tmp_path: Path, text: str) -> PolicySet:
    file = tmp_path / "policies.yaml"
    file.write_text(text)
    return load_policies(file)


def test_the_shipped_policies_are_sound() -> None:
    assert load_policies(resource("alerting/policies.yaml")).policies


@pytest.mark.parametrize(
    ("dimensions", "setting", "once"),
    [
        ("dst_addr", "", True),
        ("device, dst_addr", "", False),
        ("dst_addr", "deduplicate: false", False),
        ("device, dst_addr", "deduplicate: true", True),
    ],
)
def test_a_flow_counts_once_unless_it_matters_where_it_was_seen(
    tmp_path: Path, dimensions: str, setting: str, once: bool
) -> None:
    text = SOUND.replace("[dst_addr]", f"[{dimensions}]").replace("window: 5m", setting)
    policy = load(tmp_path, text).policies[0]
    assert policy.counts_once == once


def test_a_quota_is_of_one_of_the_dimensions(tmp_path: Path) -> None:
    text = SOUND.replace("window: 5m", "per: {dimension: dst_addr, top: 2}")
    quota = load(tmp_path, text).policies[0].per
    assert quota is not None
    assert quota.dimension == "dst_addr"


def test_durations_are_read_in_seconds(tmp_path: Path) -> None:
    first, second = load(tmp_path, SOUND).policies
    assert first.window == 300
    assert second.expiry == 3600


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("[dst_addr]", "[dst_adr]", 4, "no flow column is named 'dst_adr'"),
        ("[dst_addr]", "[bytes]", 4, "'bytes' is measured or timed, not a dimension"),
        ("[dst_addr]", "[dst_addr, dst_addr]", 4, "'dst_addr' is listed twice"),
        ("[dst_addr]", "[]", 4, "at least 1 item"),
        ("bits_per_second", "bits", 5, "no measure is named 'bits'"),
        ("bits_per_second", "unique_dst_addr", 3, "always 1 where dst_addr is a key"),
        ("bits_per_second", "new_src_addr", 3, "new_src_addr has no baseline"),
        ("5m", "five minutes", 6, "not a duration"),
        ("5m", "30s", 3, "window is shorter than interval"),
        ("5m", "2h", 6, "less than or equal to 3600"),
        ("{static: 10, baseline_ratio: 2}", "{}", 8, "give static, baseline_ratio or both"),
        ("baseline_ratio: 2", "baseline_ratio: 0.5", 7, "must be more than 1"),
        ("{static: 10, baseline_ratio: 2}", "{static: .inf}", 8, "finite"),
        ("{static: 10, baseline_ratio: 2}", "{static: -1}", 8, "greater than or equal to 0"),
        ("{static: 10, baseline_ratio: 2}", "{static: 0}", 7, "must be more than 0"),
        ("below: {static: 1}", "below: {baseline_ratio: 2}", 12, "must be less than 1"),
        ("below: {static: 1}", "{}", 12, "give above, below or both"),
        (
            "below: {static: 1}",
            "below: {static: 5}\n      above: {static: 5}",
            12,
            "above.static must be more than below.static",
        ),
        ("name: second", "name: first", 9, "first is listed twice"),
        ("name: second", "name: Second!", 9, "should match pattern"),
        ("name: second", "name: second\n    colour: red", 10, "no such setting"),
        ("name: second", "name: second\n    name: third", 10, "key 'name' is given twice"),
        ("name: second", "name: second\n    top: 600", 1, "may follow 1300 keys"),
        ("name: second", "name: second\n    max_keys: 10", 9, "max_keys is less than top"),
        ("name: second", "name: second\n    breach: {minutes: 6, of: 5}", 10, "cannot be"),
        (
            "name: second",
            "name: second\n    breach: {minutes: 1, of: 7}",
            10,
            "of: Input should be",
        ),
        ("name: second", "name: second\n    filter: 1 = 1; DROP TABLE flows", 10, "not allowed"),
        (
            "name: second",
            "name: second\n    filter: src_addr IN list('x')",
            10,
            "no list is named 'x'",
        ),
        ("name: second", "name: second\n    table: alerts", 10, "Input should be 'flows'"),
        ("window: 5m", "table: dns_queries", 3, "is not a measure of dns_queries"),
        ("bits_per_second", "share_of_capacity", 3, "needs dimensions device and in_if or out_if"),
        ("window: 5m", "per: {dimension: service, top: 2}", 6, "not one of the dimensions"),
        ("window: 5m", "pin: [{}]", 6, "names at least one dimension"),
        ("window: 5m", "pin: [{service: x}]", 6, "'service' is not one of the dimensions"),
        ("window: 5m", "pin: [{dst_addr: x}]", 6, "'x' does not appear to be an IPv4 or IPv6"),
        ("window: 5m", "critical: {below: {static: 1}}", 6, "needs bounds.below"),
        ("window: 5m", "critical: {above: {static: 9}}", 6, "static begins before bounds.above"),
        ("window: 5m", "critical: {above: {static: 10}}", 6, "is the same as bounds.above"),
        (
            "window: 5m",
            "severity: critical\n    critical: {above: {static: 11}}",
            3,
            "severity is critical already",
        ),
        (
            "window: 5m",
            "combine: any\n    no_baseline: activate",
            3,
            "would alert on every new key",
        ),
    ],
)
def test_a_wrong_policy_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    assert old in SOUND
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, SOUND.replace(old, new, 1))
    assert re.match(rf".*policies\.yaml:{line}: ", str(refused.value)), str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "proto = 6",
        "proto = 6 AND (dst_port IN (80, 443) OR dst_port BETWEEN 8000 AND 8999)",
        "src_addr = '10.0.0.1' or not dst_network in ('office', 'wi''fi', 'a\\'b')",
        "bitAnd(tcp_flags, 0x12) = 2 AND bytes / packets > 1.5e3",
        "dns_name ilike '%.example.net' AND has(mpls_labels, 16)",
        "app = '; DROP TABLE flows --'",
        "(\n dst_port\n=\t53 )",
        "dst_port in [53, 123]",
        "if(proto = 6, dst_port, 0) = -1 OR dns_name IS NOT NULL",
    ],
)
def test_an_expression_over_flow_columns_is_taken(text: str) -> None:
    check_filter(text)


@pytest.mark.parametrize(
    "text",
    [
        "1; DROP TABLE flows",
        "1) FROM flows --",
        "1) UNION ALL (SELECT 1",
        "dst_port IN (SELECT 1)",
        "(select 1) = 1",
        "dst_addr IN alerts",
        "file('/etc/passwd') = ''",
        "url('http://x', 'CSV')",
        "sleep(3) = 0",
        "sleepEachRow(3) = 0",
        "dictGet('x', 'y', 1) = 1",
        "getSetting('x') = 1",
        "currentUser() = 'x'",
        "proto /* x */ = 6",
        "proto = 6 -- x",
        "proto = 6 # x",
        "`proto` = 6",
        '"proto" = 6',
        "{p:UInt8} = 6",
        "arrayExists(x -> x = 1, mpls_labels)",
        "proto = 6 LIMIT 1",
        "proto = 6 SETTINGS max_execution_time = 0",
        "flows.proto = 6",
        "*",
        "(*) = 1",
        "proto AND *",
        "has(*, 1)",
        "columns('.*')",
        "proto :: String = '6'",
        "proto = 'x",
        "proto = 'x\\'",
        "proto = 1 \\ 2",
        "(proto = 6",
        "proto = 6)",
        ") OR (1",
        "has(mpls_labels, 1]",
        "proto ? 1 : 0",
        "proto = 6\0",
        "proto = $$6$$",
        "bytes > 1" + " + 1" * 2000,
        "if (file ('x') = '', 1, 0)",
        "in(1, alerts)",
        "proto = 6 INTO OUTFILE 'x'",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        check_filter(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("source = 'netflow'", "source is one of unknown, netflow5, "),
        (
            "proto = 6 AND direction != 'in'",
            "direction is one of unknown, ingress, egress, not 'in'",
        ),
        ("source NOT IN ('ebpf', 'netflow')", "not 'netflow'"),
        (
            "dst_addr IN ('10.0.0.1', '10.0.0.0/8')",
            "write dst_addr BETWEEN '10.0.0.0' AND '10.255.255.255', or dst_addr IN list(…)",
        ),
        ("src_addr = '2001:db8::/64'", "BETWEEN '2001:db8::' AND '2001:db8::ffff:ffff:ffff:ffff'"),
        ("src_addr = '10.0.0.0/x'", "is no address but a prefix"),
        (
            "NOT isIPAddressInRange(toString(src_addr), '192.0.2.0/24')",
            "write src_addr BETWEEN '192.0.2.0' AND '192.0.2.255'",
        ),
    ],
)
def test_what_would_never_be_true_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        check_filter(text)


@pytest.mark.parametrize(
    "text",
    [
        "source = 'ebpf' AND direction IN ('ingress', 'egress')",
        "source LIKE 'netflow%'",
        "app = 'a/b' AND dst_addr != '10.0.0.1'",
        "isIPAddressInRange(toString(src_addr), '::ffff:10.0.0.0/104')",
        "isIPAddressInRange(toString(src_addr), '2001:db8::/32')",
        "isIPAddressInRange(http_host, '10.0.0.0/8')",
    ],
)
def test_what_may_be_true_is_taken(text: str) -> None:
    check_filter(text)


def _query(**changes: Any) -> str:
    fields = {
        "name": "p",
        "dimensions": ["dst_addr"],
        "measure": "bits_per_second",
        "bounds": {"above": {"static": 1}},
    }
    return policy_query(Policy.model_validate(fields | changes), 0).sql


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_binds_what_its_query_names(measure: str) -> None:
    policy = Policy(
        name="p",
        table="flows" if "flows" in MEASURES[measure].tables else "dns_queries",
        dimensions=["device", "in_if"] if MEASURES[measure].share == "capacity" else ["device"],
        measure=measure,
        bounds=Bounds(above=Bound(static=1)),
    )
    query = policy_query(policy, 0)
    assert set(re.findall(r"\{(\w+):\w+\}", query.sql)) == set(query.parameters)


def test_a_filter_stays_within_its_parentheses() -> None:
    sql = _query(filter="proto = 6 OR 1 = 1")
    assert "AND (\nproto = 6 OR 1 = 1\n)" in sql


PAGE = resource("docs/reference/policies.md")


MODELS: dict[str, type[BaseModel]] = {
    model.__name__: model for model in (PolicySet, PolicyList, Policy, Quota, Bounds, Bound, Breach)
}


def _fields() -> list[tuple[str, str]]:
    return [(model.__name__, name) for model in MODELS.values() for name in model.model_fields]


@pytest.mark.parametrize(("model", "name"), _fields())
def test_every_field_is_documented_with_its_default(model: str, name: str) -> None:
    field = MODELS[model].model_fields[name]
    rows = re.findall(rf"^\| `{name}` \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
    described = [(default, text) for default, text in rows if text == field.description]
    assert described, f"{model}.{name}: {field.description}"
    assert (described[0][0] == "required") == field.is_required()


def test_every_measure_column_and_function_is_documented() -> None:
    text = PAGE.read_text()
    for measure in MEASURES.values():
        assert f"| `{measure.name}` | {measure.unit} | {measure.description} |" in text
    for function in FUNCTIONS:
        assert f"`{function}`" in text
    for minutes in get_args(Breach.model_fields["of"].annotation):
        assert f"{minutes}" in text
    assert set(re.findall(r"`((?:src|dst)_\w+)`", text)) <= set(BY_NAME)
