"""The code generated from ``exporter/proto/*.proto``.

``python -m tests.support.protobuf`` (``make proto``) writes it; a test fails when it is older than
the definitions.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path("exporter/proto")


def generated() -> dict[str, str]:
    """The text of each file, by its path in the repository.

    Raises:
        ValueError: a definition is wrong; the compiler has said on stderr what and where.
    """
    with TemporaryDirectory() as folder:
        for proto in sorted((ROOT / FOLDER).glob("*.proto")):
            outputs = ["--python_out", "--pyi_out"]
            if re.search(r"^service\s", proto.read_text(), re.MULTILINE):
                outputs.append("--grpc_python_out")
            includes = [f"-I{ROOT}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
            options = [f"{output}={folder}" for output in outputs]
            if protoc.main(["protoc", *includes, *options, str(ROOT / FOLDER / proto.name)]):
                raise ValueError(f"{proto} cannot be compiled")
        return {
            str(file.relative_to(folder)): file.read_text()
            for file in sorted(Path(folder).rglob("*.py*"))
        }


def committed() -> dict[str, str]:
    """The same as the repository has it."""
    return {
        str(file.relative_to(ROOT)): file.read_text()
        for file in sorted((ROOT / FOLDER).glob("*_pb2*.py*"))
    }


if __name__ == "__main__":
    texts = generated()
    for old in committed().keys() - texts.keys():
        (ROOT / old).unlink()
    for name, text in texts.items():
        (ROOT / name).write_text(text)
