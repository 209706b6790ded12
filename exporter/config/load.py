"""YAML files as typed objects, with the line of each fault; secrets from files; their versions."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from exporter.config.faults import faults_of, shown
from exporter.config.section import ConfigError

Model = TypeVar("Model", bound=BaseModel)
FileVersion = tuple[int, ...]


def load_yaml(path: Path, model: type[Model]) -> Model:
    """A YAML file as ``model``.

    Raises:
        ConfigError: one line per fault, each as ``file:line: where: what``.
    """
    try:
        node = yaml.compose(read_text(path), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _yaml_fault(path, error) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply") from error
    loader = _Loader("")
    try:
        data = {} if node is None else loader.construct_document(node)
        return model.model_validate(data, context={"folder": path.parent.absolute()})
    except yaml.MarkedYAMLError as error:
        raise _yaml_fault(path, error) from error
    except ValidationError as error:
        faults = [
            f"{path}:{_line(node, place)}: {shown(place)}: {what}"
            for place, what in faults_of(error, model)
        ]
        raise ConfigError("\n".join(faults)) from error
    finally:
        loader.dispose()


def _yaml_fault(path: Path, error: yaml.MarkedYAMLError) -> ConfigError:
    line = error.problem_mark.line + 1 if error.problem_mark else 1
    advice = ": indent with spaces" if "'\\t'" in str(error.problem) else ""
    return ConfigError(f"{path}:{line}: {error.problem}{advice}")


def check_regular(path: Path) -> None:
    """Refuse what is no file, nor a link to one: to read a pipe or a device may never end.

    Raises:
        OSError: it is none, or there is nothing.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = (
            "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        )
        raise OSError(errno.EINVAL, f"is {kind}, where a regular file is needed", str(path))


def read_bytes(path: Path) -> bytes:
    """All of a regular file.

    Raises:
        OSError: it cannot be read, or is none.
    """
    check_regular(path)
    return path.read_bytes()


def read_text(path: Path) -> str:
    """A file of UTF-8; the mark that some programs put at its beginning is left out.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8: then with the line.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8: {error.reason}") from error


def version_of(found: os.stat_result) -> FileVersion:
    """What tells versions of a file apart.

    Its time of change, too: of a file that may now be read nothing else is another, nor of one
    that was put there with the old one's times.
    """
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def version_at(path: str) -> FileVersion | None:
    """The version of a file, ``None`` where there is none."""
    try:
        return version_of(Path(path).stat())
    except OSError:
        return None


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, which plain YAML loaders pass over in silence.

    What looks like a date or a number and is none is an error with its line, too. Labels are texts
    as they are written, also ``12`` and ``1.10``, as Prometheus takes them.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError) as error:
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"no {kind}: {str(node.value)[:80]!r}", node.start_mark
            ) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        for key, value in node.value:
            if key.value == "labels" and isinstance(value, yaml.MappingNode):
                _make_texts(value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def _make_texts(labels: yaml.MappingNode) -> None:
    """Let the names and values of labels be texts; one that is left out is empty."""
    for scalar in (part for pair in labels.value for part in pair):
        if isinstance(scalar, yaml.ScalarNode):
            if scalar.tag == "tag:yaml.org,2002:null":
                scalar.value = ""
            scalar.tag = "tag:yaml.org,2002:str"


def lines_of(path: Path, locations: Iterable[tuple[int | str, ...]]) -> list[int]:
    """The line, from 1, of what lies at each location (keys and positions) in a YAML file that was
    read before; of the innermost that it lies in, where the file has no such place."""
    document = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    return [_line(document, location) for location in locations]


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """The line of the innermost node on the way to ``location`` that the file has."""
    line = 1
    for part in location:
        if node is not None:
            line = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line = key.start_mark.line + 1
                    node = value
                    break
            else:
                return line
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                return line
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def read_secret(path: str, environment: str) -> str:
    """A password or token from ``path``, else from the environment variable, else empty.

    Raises:
        ConfigError: ``path`` is given and is no file of text that can be read.
    """
    if not path:
        return os.environ.get(environment, "")
    try:
        return read_bytes(Path(path)).decode().strip()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        # The error itself holds a byte of the secret.
        raise ConfigError(f"{path}: not UTF-8") from None
