"""Settings of the embedded engines. Importing this imports no engine."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0)]


class EngineSettings(BaseModel):
    """How many worker processes there are, how long work may take, and which models they load."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: Annotated[int, Field(ge=0, le=64)] = 0
    """Worker processes of one thread each; every one holds every model. 0: one a core, at least 2 and at most 4."""
    niceness: Annotated[int, Field(ge=0, le=19)] = 5
    """Added to the workers' niceness, so that the media clock always gets its core first."""
    start_s: Seconds = 60
    """A worker that has not loaded and warmed its models by then is started anew."""
    restart_backoff_max_s: Seconds = 30
    """Longest wait before a worker that keeps dying is started again; the first wait is 0.25 s and doubles."""

    queue: Annotated[int, Field(ge=1)] = 64
    """Jobs that may wait for a worker; the next one fails at once, unless a less urgent one can make room."""
    stt_deadline_s: Seconds = 5
    """A settled text that took longer is of no use to a conversation."""
    partial_deadline_s: Seconds = 0.6
    """The same for a partial text, wanted for a barge-in that must be decided within half a second."""
    tts_deadline_s: Seconds = 6
    """For each clause. A caller takes a longer silence for a dead line."""
    embed_deadline_s: Seconds = 3
    hang_margin_s: Seconds = 2
    """A worker that has not answered this long after a job's deadline is killed."""

    overload_wait_s: Seconds = 0.8
    """New callers are refused while a new job would wait longer than this ..."""
    overload_after_s: Annotated[float, Field(ge=0)] = 2
    """... and has done so for this long."""

    stt_engine: Literal["auto", "moonshine", "whisper"] = "auto"
    """`auto`: whisper-base if the extra `whisper` is installed, else Moonshine."""
    moonshine_model: Path | None = None
    """A directory with `encoder_model.ort`, `decoder_model_merged.ort` and `tokenizer.bin` instead of the packaged
    tiny-en; files of one's own are not checked against a hash."""
    whisper_model: Path | None = None
    """A CTranslate2 directory (config.json, tokenizer.json, vocabulary.txt, model.bin) instead of whisper-base."""
    piper_voice: Path | None = None
    """A Piper `.onnx` with its `.onnx.json` beside it, instead of the packaged en_US-joe-medium."""
    embed_model: Path | None = None
    """A sentence-transformers BERT `.onnx` of 384 dimensions with the uncased English WordPiece vocabulary."""

    turn_max_s: Annotated[float, Field(ge=5)] = 60
    """Audio of one caller's turn that is understood; when it goes on beyond, its beginning is forgotten."""
    phrase_cache_mb: Annotated[int, Field(ge=0)] = 32
    """Memory for synthesised phrases, least recently used out first; prepared ones are on disk too."""
    embed_cache: Annotated[int, Field(ge=0)] = 4096
    """Texts whose embedding is kept in memory (1.5 KB each)."""
