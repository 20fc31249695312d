"""The documents' examples: each block of YAML that begins with `# offhook.yaml` is a configuration that works."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from bridge.check import check, warnings
from bridge.configfile import parse
from bridge.providers.registry import KINDS

ROOT = Path(__file__).parents[3]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "pbx").rglob("*.md")))
WHOLE = re.compile(r"^```yaml\n(# offhook\.yaml\b.*?)^```$", re.MULTILINE | re.DOTALL)
SECRET = re.compile(r"(?:\$\{env:|password_env: )(\w+)")
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)")

WRITTEN = date(2026, 11, 21)
"""Models that the examples name are judged as of then."""


def examples() -> Iterator[tuple[str, str]]:
    """Each with the place that it stands at."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for found in WHOLE.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{path.relative_to(ROOT)}:{line}", found[1]


EXAMPLES = dict(examples())


def test_the_documents_have_examples() -> None:
    with_some = {place.partition(":")[0] for place in EXAMPLES}
    assert {"README.md", "docs/agents.md", "docs/providers.md", "docs/tools.md"} <= with_some


@pytest.mark.parametrize("place", EXAMPLES)
def test_an_example_passes_the_check(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Keys and secrets are the only thing that a reader has to put there.
    (tmp_path / "key").write_text("key-of-a-test")
    for kind in KINDS.values():
        if kind.key_env:
            monkeypatch.setenv(kind.key_env, "key-of-a-test")
    for variable in SECRET.findall(EXAMPLES[place]):
        monkeypatch.setenv(variable, "secret-of-a-test")
    text = re.sub(r"/run/secrets/\w+", str(tmp_path / "key"), EXAMPLES[place])
    config = parse(text, place, tmp_path)
    assert check(config, WRITTEN) == []
    assert list(warnings(config, WRITTEN)) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_links_to_is_there(path: Path) -> None:
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []
