"""Compares ``exporter/proto/pbflow.proto`` with the eBPF agent's own definition.

``python -m tests.support.compare_proto FLOW.PROTO`` prints what differs on the wire and ends with 1
if anything does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc_tools
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

OURS = Path(__file__).resolve().parents[2] / "exporter/proto/pbflow.proto"


def compiled(proto: Path) -> FileDescriptorProto:
    """What a definition says, without its words.

    Raises:
        ValueError: it cannot be compiled.
    """
    with TemporaryDirectory() as folder:
        out = Path(folder, "set")
        library = Path(grpc_tools.__file__).parent / "_proto"
        if protoc.main(["", f"-I{proto.parent}", f"-I{library}", f"-o{out}", str(proto)]):
            raise ValueError(f"{proto} cannot be compiled")
        return FileDescriptorSet.FromString(out.read_bytes()).file[0]


def differences(ours: FileDescriptorProto, theirs: FileDescriptorProto) -> list[str]:
    """One line for each message, field, enum value or method that only one has."""
    left, right = set(_facts(ours)), set(_facts(theirs))
    return [f"only ours: {fact}" for fact in sorted(left - right)] + [
        f"only theirs: {fact}" for fact in sorted(right - left)
    ]


def _facts(file: FileDescriptorProto) -> Iterator[str]:
    yield f"package {file.package}, {file.syntax}"
    for message in file.message_type:
        yield from _message(message, "")
    for enum in file.enum_type:
        yield from (f"enum {enum.name}: {value.name} = {value.number}" for value in enum.value)
    for service in file.service:
        for method in service.method:
            yield (
                f"service {service.name}: {method.name}({method.input_type}) returns "
                f"{method.output_type}, {method.client_streaming}, {method.server_streaming}"
            )


def _message(message: DescriptorProto, path: str) -> Iterator[str]:
    name = f"{path}{message.name}"
    yield f"message {name}"
    for field in message.field:
        kind = field.type_name or field.Type.Name(field.type)
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        label = field.Label.Name(field.label)
        yield f"message {name}: {label} {kind} {field.name} = {field.number} {oneof}".rstrip()
    for nested in message.nested_type:
        yield from _message(nested, f"{name}.")


if __name__ == "__main__":
    found = differences(compiled(OURS), compiled(Path(sys.argv[1]).resolve()))
    print("\n".join(found) or f"the same: {len(list(_facts(compiled(OURS))))} facts")
    sys.exit(bool(found))
