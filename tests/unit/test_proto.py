"""The generated protobuf code is that of the definitions beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import protobuf


def test_generated_code_is_up_to_date() -> None:
    assert protobuf.committed() == protobuf.generated(), "run `make proto`"


def test_a_wrong_definition_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / protobuf.FOLDER
    folder.mkdir(parents=True)
    (folder / "wrong.proto").write_text('syntax = "proto3";\nmessage A { int32 a = 0; }\n')
    monkeypatch.setattr(protobuf, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=r"wrong\.proto cannot be compiled"):
        protobuf.generated()
