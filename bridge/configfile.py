"""Reading the configuration: a YAML file under `OFFHOOK_*` variables, every mistake with its file and line."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bridge.config import ENV_PREFIX, Config

DEFAULT_FILE = "offhook.yaml"
"""Read from the working directory when no file is named."""


class ConfigError(Exception):
    """The configuration can't be used; `problems` holds one line for each mistake, with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Loaded:
    config: Config
    source: str
    """The file it came from, for people."""
    path: Path | None = None
    """The same for programs; None: the built-in default."""


def load(path: Path | None) -> Loaded:
    """Read the configuration from `path`, else `offhook.yaml` in the working directory, else the built-in default.

    `OFFHOOK_*` variables take precedence. Raises ConfigError with every mistake and its place."""
    if path is None and Path(DEFAULT_FILE).is_file():
        path = Path(DEFAULT_FILE)
    if path is None:
        text = resources.files("bridge").joinpath("default.yaml").read_text(encoding="utf-8")
        return Loaded(parse(text, "built-in default", Path()), "built-in default")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: can't be read: {error}"]) from error
    return Loaded(parse(text, str(path), path.parent), str(path), path)


def parse(text: str, source: str, folder: Path) -> Config:
    """Turn YAML `text` into a Config. `source` names it in errors; `brief_file` is looked up in `folder`."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError([f"{place}: not valid YAML: {getattr(error, 'problem', error)}"]) from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError([f"{source}:1: the configuration must be a mapping of sections, not {type(data).__name__}"])
    problems = list(_duplicate_keys(root, source)) if root is not None else []
    problems += _take_in_briefs(data, folder, root, source)
    if problems:
        raise ConfigError(problems)
    try:
        return Config(**data)
    except ValidationError as error:
        raise ConfigError(list(_describe(error, root, source))) from error


def _take_in_briefs(data: dict[str, Any], folder: Path, root: yaml.Node | None, source: str) -> list[str]:
    problems: list[str] = []
    agents = data.get("agents")
    if not isinstance(agents, dict):
        return problems
    for name, agent in agents.items():
        if not isinstance(agent, dict):
            continue
        agent.setdefault("kind", "conversation")
        wanted = agent.get("brief_file")
        if not isinstance(wanted, str) or not wanted:
            continue
        try:
            if wanted == "receptionist":
                text = resources.files("bridge").joinpath("receptionist.yaml").read_text(encoding="utf-8")
            else:
                text = (folder / wanted).read_text(encoding="utf-8")
            brief = yaml.safe_load(text)
            if not isinstance(brief, dict):
                raise TypeError("it must be a mapping with greeting and brief")
        except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError) as error:
            place = _place(root, ("agents", name, "brief_file"), source)
            problems.append(f"{place}: agents.{name}.brief_file: {wanted}: {error}")
            continue
        for key, value in brief.items():
            agent.setdefault(key, value)
    return problems


def _describe(error: ValidationError, root: yaml.Node | None, source: str) -> Iterator[str]:
    for item in error.errors(include_url=False):
        # A tagged union puts its tag into the location; the file knows nothing of it.
        loc = tuple(part for i, part in enumerate(item["loc"]) if not (i == 2 and item["loc"][0] == "agents"))
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "there is no such setting"
        elif item["type"] not in ("missing", "value_error") and isinstance(item["input"], str | int | float):
            message += f" (it is {item['input']!r})"
        for line in message.splitlines():
            if loc and loc != ("providers",):
                yield f"{_variable(loc) or _place(root, loc, source)}: {path}: {line}"
            else:
                # Said of the whole, each line with its own path in front; of `providers`, from there on.
                whole = f"{path}.{line}" if path else line
                parts = _parts(root, whole)
                yield f"{_variable(parts) or _place(root, parts, source)}: {whole}"


def _parts(root: yaml.Node | None, line: str) -> tuple[int | str, ...]:
    """The path that a line begins with, as far as it stands in the file: `agents.a.stt: ...`, `routes[0].to: ...`."""
    parts: list[int | str] = []
    node, rest = root, line
    while True:
        if isinstance(node, yaml.MappingNode):
            # The longest key that fits: names may have dots in them.
            keys = [str(key.value) for key, _ in node.value if re.match(rf"{re.escape(str(key.value))}[.\[:]", rest)]
            if not keys:
                break
            key = max(keys, key=len)
            node = next(value for name, value in node.value if name.value == key)
            parts.append(key)
            rest = rest[len(key) :].removeprefix(".")
        elif isinstance(node, yaml.SequenceNode) and (found := re.match(r"\[(\d+)\]\.?", rest)):
            index = int(found[1])
            if index >= len(node.value):
                break
            node = node.value[index]
            parts.append(index)
            rest = rest[found.end() :]
        else:
            break
    if not parts and (word := re.match(r"(\w+)(?:\.(\w+))?", line)):
        # It does not stand in the file: then perhaps in a variable.
        parts = [name for name in word.groups() if name]
    return tuple(parts)


def _variable(loc: tuple[int | str, ...]) -> str | None:
    """The environment variable that set the value at `loc`, if one did: it takes precedence over the file."""
    name = ENV_PREFIX + "_".join(str(part) for part in loc).upper()
    return name if name in os.environ else None


def _place(root: yaml.Node | None, loc: tuple[int | str, ...], source: str) -> str:
    """`file:line` of the deepest part of `loc` that stands in the file."""
    line = 1
    node = root
    for part in loc:
        found: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line = key.start_mark.line + 1
                    found = value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = node.value[part]
            line = found.start_mark.line + 1
        if found is None:
            break
        node = found
    return f"{source}:{line}"


def _duplicate_keys(node: yaml.Node, source: str) -> Iterator[str]:
    """YAML lets a key stand twice and keeps the last; in a configuration that hides a mistake."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                yield f"{source}:{line}: {key.value}: stands here again, first in line {seen[key.value]}"
            seen[key.value] = line
            yield from _duplicate_keys(value, source)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _duplicate_keys(value, source)
