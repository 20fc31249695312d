"""The fuzz targets: every input of the corpus, and a minute of fuzzing."""

from pathlib import Path

import pytest
from fuzz_run import CORPUS, run_all
from fuzz_targets import TARGETS

INPUTS = [(name, path) for name in TARGETS for path in sorted((CORPUS / name).iterdir())]


def test_every_target_has_a_corpus() -> None:
    assert {name for name, _ in INPUTS} == TARGETS.keys()


@pytest.mark.parametrize(("name", "path"), [pytest.param(*pair, id=f"{pair[0]}/{pair[1].name}") for pair in INPUTS])
def test_input_of_the_corpus_is_taken(name: str, path: Path) -> None:
    TARGETS[name](path.read_bytes())


@pytest.mark.timeout(300)
def test_a_minute_of_fuzzing_finds_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # The same inputs each time: what others find is for `make fuzz`.
    failed = run_all(list(TARGETS), 60, 2, tmp_path, seed=1)
    said = capfd.readouterr().out
    assert not failed, said
