"""Template sets: what they define, and where one that cannot be parsed ends."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from exporter.decode.elements import V9, V9_SCOPE
from exporter.decode.layout import Field
from exporter.decode.templates import (
    Definition,
    TemplateError,
    ipfix_templates,
    netflow9_options_templates,
    netflow9_templates,
)
from tests.support.netflow import (
    FieldSpec,
    options_template9,
    options_template10,
    template9,
    template10,
)

Parser = Callable[[bytes], Iterator[Definition]]

ipfix_options_templates = partial(ipfix_templates, options=True)
ipfix_flow_templates = partial(ipfix_templates, options=False)


MALFORMED = "malformed_template"
FIELDS: list[FieldSpec] = [(8, 4), (12, 4)]
SCOPES: list[FieldSpec] = [(1, 4)]


def words(*numbers: int) -> bytes:
    return struct.pack(f"!{len(numbers)}H", *numbers)


def read(definitions: Iterator[Definition]) -> tuple[list[int], str]:
    """Identifiers of the templates up to the first fault, and that."""
    found: list[int] = []
    try:
        for definition in definitions:
            found.append(definition.id)  # noqa: PERF401  those before the fault count
    except TemplateError as error:
        return found, str(error)
    return found, ""


def body(whole: bytes) -> bytes:
    return whole[4:]


@pytest.mark.parametrize(
    ("parse", "first", "second"),
    [
        (netflow9_templates, template9(256, FIELDS), template9(257, FIELDS)),
        (netflow9_options_templates, options_template9(256, SCOPES, FIELDS),
         options_template9(257, SCOPES, FIELDS)),
        (ipfix_flow_templates, template10(256, FIELDS), template10(257, [(29305, 1, 8), (8, 4)])),
        (ipfix_flow_templates, template10(256, []), template10(257, FIELDS)),
        (ipfix_options_templates, options_template10(256, 1, FIELDS),
         options_template10(257, 1, FIELDS)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("padding", [0, 1, 3, 4, 8])
def test_a_set_defines_templates_one_after_another(
    parse: Parser, first: bytes, second: bytes, padding: int
) -> None:
    assert read(parse(body(first) + body(second) + bytes(padding))) == ([256, 257], "")


@pytest.mark.parametrize(
    ("parse", "good"),
    [
        (netflow9_templates, template9(256, FIELDS)),
        (netflow9_options_templates, options_template9(256, SCOPES, FIELDS)),
        (ipfix_flow_templates, template10(256, FIELDS)),
        (ipfix_flow_templates, template10(256, [(8, 4), (29305, 1, 8)])),
        (ipfix_options_templates, options_template10(256, 1, FIELDS)),
    ],
)
def test_a_template_that_is_cut_short_spoils_none_before_it(parse: Parser, good: bytes) -> None:
    whole = body(good)
    for octets in range(8, len(whole)):
        assert read(parse(whole + whole[:octets])) == ([256], MALFORMED), octets


@pytest.mark.parametrize(
    ("parse", "bad"),
    [
        (netflow9_templates, words(255, 1, 8, 4)),
        (netflow9_templates, words(0, 1, 8, 4)),
        (netflow9_options_templates, words(255, 4, 4, 1, 4, 34, 4)),
        (netflow9_options_templates, words(0, 0, 4, 34, 4)),
        (netflow9_options_templates, words(0, 4, 0, 1, 4)),
        (ipfix_flow_templates, words(255, 1, 8, 4)),
        (ipfix_flow_templates, words(0, 1, 8, 4)),
    ],
)
def test_numbers_below_256_are_those_of_no_template(parse: Parser, bad: bytes) -> None:
    assert read(parse(bad)) == ([], MALFORMED)


def test_the_fields_of_ipfix_have_enterprises() -> None:
    (definition,) = ipfix_flow_templates(body(template10(256, [(8, 4), (29305, 1, 8)])))
    assert definition.fields == (Field(0, 8, 4), Field(29305, 1, 8))
    assert not definition.options
    (definition,) = ipfix_options_templates(body(options_template10(256, 1, [(143, 4), (34, 4)])))
    assert definition.fields == (Field(0, 143, 4), Field(0, 34, 4))
    assert definition.options


def test_scopes_of_netflow_9_are_no_elements() -> None:
    """RFC 3954, section 6.1, has types 1 to 5; what has a higher one is an element."""
    scopes: list[FieldSpec] = [(1, 4), (5, 2), (6, 1)]
    (definition,) = netflow9_options_templates(body(options_template9(256, scopes, [(5, 1)])))
    kinds = [(field.enterprise, field.element) for field in definition.fields]
    assert kinds == [(V9_SCOPE, 1), (V9_SCOPE, 5), (V9, 6), (V9, 5)]


def test_counters_out_are_the_responders_where_they_are_of_the_other_direction() -> None:
    specs: list[FieldSpec] = [(1, 4), (2, 4), (23, 4), (24, 4), (8, 4), (9, 1, 4)]
    (definition,) = ipfix_flow_templates(body(template10(256, specs)))
    turned = definition.with_reverse_counters()
    kinds = [(field.enterprise, field.element) for field in turned.fields]
    assert kinds == [(0, 231), (0, 298), (0, 232), (0, 299), (0, 8), (9, 1)]
