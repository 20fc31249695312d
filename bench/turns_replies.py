"""How late the agent answers, and how much of that is the bridge's: every recorded question in a call of its own."""

from bench.barge_corpus import AUDIO
from bench.replay import LLM_FIRST_S, TTS_FIRST_S, Recogniser, Replay, play, spread_words
from bench.served import quantile
from bench.vad_signals import Recording, recordings
from bench.virtual_time import in_virtual_time
from bridge.agents.settings import ConversationSettings
from bridge.audio.vad import VoiceActivity
from bridge.events import TurnEnded

SETTLED_MS = 150.0
AFTER_S = 4.0
ADDED_BUDGET_MS = (60, 100)
"""Of the delay besides endpointing and providers: median and 95th percentile (DESIGN.md)."""

TEXTS = {
    "hours": "What time do you close on Sundays?",
    "book": "I'd like to book a table for four people on Friday at seven thirty.",
    "human": "Can I speak to a real person please?",
    "price": "How much does a haircut cost?",
    "order": "Where is my order? The order number is seven three one nine.",
    "doctor": "I have a really bad toothache and I need to see the dentist today.",
    "no1": "No, thank you.",
    "yes2": "Yes, that's right.",
    "short": "Tuesday afternoon works.",
}


def measure_replies() -> bool:
    """Print the table; whether the budget is kept."""
    print(
        f"\nReplies: text {SETTLED_MS:.0f} ms after a pause, model {LLM_FIRST_S * 1000:.0f}, voice "
        f"{TTS_FIRST_S * 1000:.0f}; ms from the caller's last sound to the agent's first"
    )
    print(
        f"{'question':<10}{'n':>4}{'reply p50':>10}{'p95':>7}{'endpoint p50':>13}{'p95':>7}"
        f"{'added p50':>10}{'p95':>6}"
    )
    found = in_virtual_time(_replies)
    added: list[float] = []
    everything: list[tuple[float, float, float]] = []
    for name in TEXTS:
        if rows := found.get(name):
            _row(name, rows)
            everything += rows
            added += [row[2] for row in rows]
    _row("all", everything)
    kept = quantile(added, 0.5) <= ADDED_BUDGET_MS[0] and quantile(added, 0.95) <= ADDED_BUDGET_MS[1]
    print(
        f"added to the silence waited for and to the providers: budget {ADDED_BUDGET_MS[0]}, {ADDED_BUDGET_MS[1]}: "
        f"{'kept' if kept else 'NOT kept'}"
    )
    return kept


def _row(name: str, rows: list[tuple[float, float, float]]) -> None:
    replies, endpoints, added = ([row[at] for row in rows] for at in range(3))
    print(
        f"{name:<10}{len(rows):>4}{quantile(replies, 0.5):>10.0f}{quantile(replies, 0.95):>7.0f}"
        f"{quantile(endpoints, 0.5):>13.0f}{quantile(endpoints, 0.95):>7.0f}"
        f"{quantile(added, 0.5):>10.0f}{quantile(added, 0.95):>6.0f}"
    )


async def _replies() -> dict[str, list[tuple[float, float, float]]]:
    """By question: reply, endpoint and added delay of each recording."""
    activity = VoiceActivity()
    asked = [r for r in recordings(AUDIO) if _what(r) in TEXTS]
    settings = ConversationSettings(greeting="")
    calls = [
        Replay(
            activity,
            recording.samples,
            settings,
            words=spread_words(TEXTS[_what(recording)], recording.onset_s, recording.offset_s),
            how=Recogniser(settled_ms=SETTLED_MS, streams=True),
            reply="We are open from noon to ten at night.",
            name=recording.name,
        )
        for recording in asked
    ]
    await play(activity, calls, max(call.line_s for call in calls) + AFTER_S)
    await activity.aclose()
    found: dict[str, list[tuple[float, float, float]]] = {}
    for recording, call in zip(asked, calls, strict=True):
        if (row := _measured(recording, call)) is not None:
            found.setdefault(_what(recording), []).append(row)
    return found


def _measured(recording: Recording, call: Replay) -> tuple[float, float, float] | None:
    turn = next((event for event in call.events if isinstance(event, TurnEnded) and event.speaker == "agent"), None)
    # The line's first frame came 20 ms after the answer; a frame that is sent begins to sound then.
    since = call.answered_at + 0.02 + recording.offset_s
    first = next((at for at, voiced in call.leg.sent if voiced and at > since), None)
    if turn is None or first is None:
        return None
    reply_ms = (first - since) * 1000
    delays = turn.delays
    endpoint_ms = delays.endpoint_ms or 0.0
    own = min(delays.stt_ms or 0.0, SETTLED_MS)
    own += min(delays.llm_ms or 0.0, LLM_FIRST_S * 1000) + min(delays.tts_ms or 0.0, TTS_FIRST_S * 1000)
    return reply_ms, endpoint_ms, (delays.reply_ms or reply_ms) - endpoint_ms - own


def _what(recording: Recording) -> str:
    return recording.name.split("_")[1]
