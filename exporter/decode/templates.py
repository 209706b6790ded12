"""Templates as NetFlow v9 and IPFIX devices define them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from exporter.decode.elements import V9, V9_SCOPE
from exporter.decode.layout import Field, Layout

_PAIR: Final = struct.Struct(">HH")
_TRIPLE: Final = struct.Struct(">HHH")
_ENTERPRISE: Final = struct.Struct(">I")

#: Highest type of a scope in NetFlow v9: "Template" (RFC 3954, section 6.1).
_LAST_SCOPE: Final = 5

#: Counters of both directions, as those of initiator and responder.
_BOTH_WAYS: Final = {1: 231, 2: 298, 23: 232, 24: 299}

#: Smallest identifier of a template; below are the sets that define templates.
FIRST_TEMPLATE: Final = 256


@dataclass(slots=True)
class Definition:
    """A template as told by a device; ``options`` where its records are options, not flows.

    An IPFIX template of no fields is a withdrawal (RFC 7011, section 8.1).
    """

    id: int
    fields: tuple[Field, ...]
    options: bool

    def with_reverse_counters(self) -> Definition:
        """The same where 23 and 24 are counters of the other direction, the responder's."""
        fields = tuple(
            field._replace(enterprise=0, element=_BOTH_WAYS[field.element])
            if field.element in _BOTH_WAYS and field.enterprise in (0, V9)
            else field
            for field in self.fields
        )
        return Definition(self.id, fields, self.options)


@dataclass(slots=True)
class Template:
    """A template in force: how its records look, and when it was told last."""

    id: int
    layout: Layout
    options: bool
    told: int  # milliseconds since the epoch
    before: int = 0  # hash of the fields that it had before these


class TemplateError(Exception):
    """A template set that cannot be parsed from some point on; the text is the reason's name."""


def netflow9_templates(body: bytes) -> Iterator[Definition]:
    """Templates in the body of a NetFlow v9 template set (RFC 3954, section 5.2).

    Raises:
        TemplateError: after what could be parsed.
    """
    at, end = 0, len(body)
    while end - at >= 4:
        template, count = _PAIR.unpack_from(body, at)
        at += 4
        if template < FIRST_TEMPLATE:
            if template or count:
                raise TemplateError("malformed_template")
            return  # padding
        if end - at < 4 * count:
            raise TemplateError("malformed_template")
        fields = tuple(
            Field(V9, element, length)
            for element, length in _PAIR.iter_unpack(body[at : at + 4 * count])
        )
        at += 4 * count
        yield Definition(template, fields, options=False)


def netflow9_options_templates(body: bytes) -> Iterator[Definition]:
    """Options templates in the body of a NetFlow v9 options set (RFC 3954, section 6.1).

    Raises:
        TemplateError: after what could be parsed.
    """
    at, end = 0, len(body)
    while end - at >= 6:
        template, scopes, options = _TRIPLE.unpack_from(body, at)
        at += 6
        if template < FIRST_TEMPLATE:
            if template or scopes or options:
                raise TemplateError("malformed_template")
            return  # padding
        # pmacct's probe told 9 octets of two fields for years, and EdgeRouters still do.
        scopes, options = scopes & ~3, options & ~3
        if end - at < scopes + options:
            raise TemplateError("malformed_template")
        # Scopes of higher numbers than the RFC has are elements.
        fields = tuple(
            Field(
                V9_SCOPE if number < scopes // 4 and element <= _LAST_SCOPE else V9, element, length
            )
            for number, (element, length) in enumerate(
                _PAIR.iter_unpack(body[at : at + scopes + options])
            )
        )
        at += scopes + options
        yield Definition(template, fields, options=True)


def ipfix_templates(body: bytes, *, options: bool) -> Iterator[Definition]:
    """Templates in the body of an IPFIX template or options template set.

    RFC 7011, sections 3.4.1 and 3.4.2. Raises:
        TemplateError: after what could be parsed.
    """
    at, end = 0, len(body)
    while end - at >= 4:
        template, count = _PAIR.unpack_from(body, at)
        at += 4
        if count == 0 and template:
            yield Definition(template, (), options)
            continue
        if template < FIRST_TEMPLATE:
            if template or count:
                raise TemplateError("malformed_template")
            return  # padding
        if options:
            at += 2  # the number of scope fields: they are found like all others
        fields = []
        for _ in range(count):
            if end - at < 4:
                raise TemplateError("malformed_template")
            element, length = _PAIR.unpack_from(body, at)
            at += 4
            enterprise = 0
            if element & 0x8000:
                if end - at < 4:
                    raise TemplateError("malformed_template")
                (enterprise,) = _ENTERPRISE.unpack_from(body, at)
                element &= 0x7FFF
                at += 4
            fields.append(Field(enterprise, element, length))
        yield Definition(template, tuple(fields), options)
