"""The generated protobuf code is that of the definitions beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import compare_proto, protobuf


def test_generated_code_is_up_to_date() -> None:
    assert protobuf.committed() == protobuf.generated(), "run `make proto`"


def test_a_wrong_definition_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / protobuf.FOLDER
    folder.mkdir(parents=True)
    (folder / "wrong.proto").write_text('syntax = "proto3";\nmessage A { int32 a = 0; }\n')
    monkeypatch.setattr(protobuf, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=r"wrong\.proto cannot be compiled"):
        protobuf.generated()


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("// TCP", "// words only", []),
        ("uint32 flags = 13", "uint64 flags = 13", ["TYPE_UINT32 flags", "TYPE_UINT64 flags"]),
        ("string udn = 3", "string udn = 4", ["udn = 3", "udn = 4"]),
        ("EGRESS = 1", "EGRESS = 2", ["EGRESS = 1", "EGRESS = 2"]),
    ],
)
def test_a_definition_is_compared_by_what_goes_over_the_wire(
    tmp_path: Path, old: str, new: str, differs: list[str]
) -> None:
    ours = compare_proto.OURS.read_text()
    assert old in ours
    (tmp_path / "flow.proto").write_text(ours.replace(old, new))
    found = compare_proto.differences(
        compare_proto.compiled(compare_proto.OURS), compare_proto.compiled(tmp_path / "flow.proto")
    )
    assert len(found) == len(differs)
    assert all(part in line for part, line in zip(differs, found, strict=True))
