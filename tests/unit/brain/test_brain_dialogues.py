"""Whole dialogues with the receptionist: dialogues.yaml."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from brain_call import BrainCall, arguments

from bridge.providers.brief import Brief, Handover
from bridge.providers.local.brain import LocalBrain

pytestmark = pytest.mark.asyncio(loop_scope="session")

DIALOGUES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "dialogues.yaml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=[dialogue["name"] for dialogue in DIALOGUES])
async def test_dialogue(dialogue: dict[str, Any], brain: LocalBrain, receptionist: Brief) -> None:
    brief = receptionist
    if "handover" in dialogue:
        brief = brief.model_copy(update={"handover": Handover(target=dialogue["handover"])})
    call = BrainCall(brain, brief)
    for turn in dialogue["turns"]:
        answer = await call.say(turn["caller"], heard_words=turn.get("heard"), tool_fails=turn.get("fails", False))
        where = f"{turn['caller']!r} -> {answer.text!r} {arguments(answer.calls)}"
        for piece in turn.get("says", []):
            assert piece.lower() in answer.text.lower(), f"missing {piece!r}: {where}"
        for piece in turn.get("never", []):
            assert piece.lower() not in answer.text.lower(), f"has {piece!r}: {where}"
        if "calls" in turn:
            assert arguments(answer.calls) == turn["calls"], where
