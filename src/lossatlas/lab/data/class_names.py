"""Names of classes that a set declares beside its images."""

from pathlib import Path
from typing import Any

from lossatlas.lab.data.problems import DataError, Kind, Problem

LIST_FILE = "classes.txt"
YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml")


def read_yaml(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the ``data.yaml`` of a set and its content, None where there is none.

    Raises:
        DataError: a file that cannot be read.
    """
    import yaml  # only sets in the format of YOLO need it

    path = next((folder / name for name in YAML_FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError([Problem(Kind.FILE, str(path), " ".join(str(error).split()))]) from error
    if not isinstance(content, dict):
        raise DataError([Problem(Kind.VALUE, str(path), f"expected keys and values, got {type(content).__name__}")])
    return path, content


def declared_names(folder: Path) -> tuple[str, ...] | None:
    """Return the class names of a set: ``names`` of its ``data.yaml``, or the lines of its ``classes.txt``.

    Args:
        folder: of the set.

    Returns:
        The names in the order of the classes, or None where the set declares none.

    Raises:
        DataError: names that cannot be read.
    """
    found = read_yaml(folder)
    if found is not None and "names" in found[1]:
        return _yaml_names(*found)
    path = folder / LIST_FILE
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        detail = "expected the name of a class on every line, got " + ("an empty line" if names else "an empty file")
        raise DataError([Problem(Kind.VALUE, str(path), detail)])
    return _distinct(path, names)


def _yaml_names(path: Path, content: dict[str, Any]) -> tuple[str, ...]:
    names = content["names"]
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        detail = "names: expected a list, or names by their numbers from 0, with at least one entry"
        raise DataError([Problem(Kind.VALUE, str(path), detail)])
    return _distinct(path, [str(name) for name in names])


def _distinct(path: Path, names: list[str]) -> tuple[str, ...]:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError([Problem(Kind.DUPLICATE_CATEGORY, str(path), f"{', '.join(map(repr, twice))} twice")])
    return tuple(names)
