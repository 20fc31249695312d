"""Synthesised phrases, kept in memory and on disk."""

from pathlib import Path

from bridge.providers.local.phrases import PhraseFiles, PhraseMemory, phrase_key


def test_the_key_changes_with_text_voice_and_rate() -> None:
    keys = {
        phrase_key("Hello.", voice="joe", sample_rate=8000),
        phrase_key("Hello!", voice="joe", sample_rate=8000),
        phrase_key("Hello.", voice="amy", sample_rate=8000),
        phrase_key("Hello.", voice="joe", sample_rate=16000),
    }
    assert len(keys) == 4


def test_memory_drops_what_was_used_longest_ago() -> None:
    memory = PhraseMemory(limit=10)
    memory.put("a", b"1234")
    memory.put("b", b"1234")
    memory.get("a")
    memory.put("c", b"1234")
    assert (memory.get("a"), memory.get("b"), memory.get("c")) == (b"1234", None, b"1234")


def test_a_phrase_put_twice_counts_once() -> None:
    memory = PhraseMemory(limit=10)
    for _ in range(5):
        memory.put("a", b"12345")
    memory.put("b", b"12345")
    assert memory.get("a") == memory.get("b") == b"12345"


def test_a_phrase_larger_than_the_memory_is_not_kept() -> None:
    memory = PhraseMemory(limit=3)
    memory.put("a", b"1234")
    assert memory.get("a") is None


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    files = PhraseFiles(tmp_path / "new" / "phrases")
    assert files.read("key") is None
    files.write("key", b"audio")
    assert PhraseFiles(tmp_path / "new" / "phrases").read("key") == b"audio"
    assert [path.name for path in (tmp_path / "new" / "phrases").iterdir()] == ["key.phrase"]


def test_a_damaged_file_is_as_good_as_none_and_is_replaced(tmp_path: Path) -> None:
    files = PhraseFiles(tmp_path)
    files.write("key", b"audio of a phrase")
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole + b"x", b"", b"RIFF" + whole[4:]):
        file.write_bytes(damaged)
        assert files.read("key") is None
    files.write("key", b"audio of a phrase")
    assert files.read("key") == b"audio of a phrase"


def test_an_unusable_directory_is_gone_on_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    files = PhraseFiles(tmp_path / "file")
    files.write("key", b"audio")
    assert files.read("key") is None
