"""A chain of language models, in fake time."""

import asyncio
from contextlib import aclosing

import pytest
from agents_fake_time import in_fake_time
from chains_peers import NEVER, SETTINGS, ModelPeer, Step, asking, collect, members, switches, text_of

from bridge.providers.base import (
    Message,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ReplyDone,
    TextDelta,
    ToolCall,
)
from bridge.providers.chain import Member
from bridge.providers.chain_llm import ChainLlm
from bridge.providers.dialogue import GO_ON

BROKE = ProviderError("a", "it broke")
REFUSED = ProviderUnavailableError("a", "the key was refused")


def chain(of: list[Member[ModelPeer]], first_s: float = 8.0) -> ChainLlm:
    return ChainLlm(of, SETTINGS, first_s=first_s, now=asyncio.get_running_loop().time)  # type: ignore[arg-type]


@pytest.mark.parametrize("trouble", [BROKE, REFUSED, NEVER], ids=["breaks", "refuses", "stalls"])
def test_before_any_text_the_next_model_answers_in_its_place(trouble: Step) -> None:
    async def main() -> None:
        a, b = ModelPeer("a", trouble), ModelPeer("b", "We are open ", "until nine.")
        loop = asyncio.get_running_loop()
        began = loop.time()
        events = await collect(chain(members(a, b)).reply(asking()))
        assert text_of(events) == "We are open until nine."
        assert switches(events) == [("a", "b")]
        assert isinstance(events[-1], ReplyDone)
        assert b.requests[0].messages == [Message("user", "Hello?")], "it is asked as the first one was"
        assert loop.time() - began <= SETTINGS.llm_first_s
        assert a.busy == b.busy == 0

    in_fake_time(main)


@pytest.mark.parametrize("trouble", [BROKE, NEVER, None], ids=["breaks", "stalls", "ends without an end"])
def test_after_text_the_next_model_goes_on_in_its_words(trouble: Step | None) -> None:
    async def main() -> None:
        a = ModelPeer("a", "We are open ", "from ni", *([trouble] if trouble else []), ends=False)
        b = ModelPeer("b", "nine to ", "five.")
        events = await collect(chain(members(a, b)).reply(asking()))
        assert text_of(events) == "We are open from nine to five.", "half a word is not given out"
        assert switches(events) == [("a", "b")]
        assert b.requests[0].messages == [
            Message("user", "Hello?"),
            Message("assistant", "We are open from ", interrupted=True),
            Message("user", GO_ON),
        ]

    in_fake_time(main)


@pytest.mark.parametrize(
    ("again", "heard"),
    [
        (["We are open from ", "nine to five."], "We are open from nine to five."),
        (["we are", " open from nine to five."], "We are open from nine to five."),
        (["nine to five."], "We are open from nine to five."),
        (["We are closed on Sundays."], "We are open from We are closed on Sundays."),
        (["We are open from"], "We are open from "),
    ],
)
def test_what_the_next_model_repeats_against_its_instruction_is_not_said_twice(again: list[str], heard: str) -> None:
    async def main() -> None:
        a, b = ModelPeer("a", "We are open from ", BROKE), ModelPeer("b", *again)
        assert text_of(await collect(chain(members(a, b)).reply(asking()))) == heard

    in_fake_time(main)


def test_the_deterministic_brain_is_not_asked_to_go_on() -> None:
    async def main() -> None:
        a, b = ModelPeer("a", "We are ", BROKE), ModelPeer("b", "Open daily.", follows_instructions=False)
        events = await collect(chain(members(a, b)).reply(asking()))
        assert text_of(events) == "We are Open daily."
        assert len(b.requests[0].messages) == 1

    in_fake_time(main)


def test_work_beside_the_conversation_goes_only_to_models_that_follow_instructions() -> None:
    async def main() -> None:
        from dataclasses import replace

        brain, model = ModelPeer("brain", "x", follows_instructions=False), ModelPeer("model", "A summary.")
        asked = replace(asking(), instructions="Sum it up.")
        assert text_of(await collect(chain(members(brain, model)).reply(asked))) == "A summary."
        assert brain.requests == []
        with pytest.raises(ProviderUnavailableError, match="follows instructions"):
            await collect(chain(members(brain)).reply(asked))

    in_fake_time(main)


def test_tools_asked_for_by_the_next_model_are_its_own() -> None:
    async def main() -> None:
        call = ToolCall("1", "hang_up", {})
        a, b = ModelPeer("a", BROKE), ModelPeer("b", "Bye.", call)
        events = await collect(chain(members(a, b)).reply(asking()))
        assert events[-1] == ReplyDone((call,))

    in_fake_time(main)


def test_when_all_fail_the_last_error_is_raised_before_the_conversation_gives_up() -> None:
    async def main() -> None:
        a, b = ModelPeer("a", NEVER), ModelPeer("b", NEVER)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(ProviderTimeoutError) as failed:
            await collect(chain(members(a, b), first_s=8.0).reply(asking()))
        assert failed.value.provider == "b"
        assert 7 < loop.time() - began < 8
        assert a.busy == b.busy == 0

    in_fake_time(main)


def test_a_call_stays_with_the_model_that_works_and_other_calls_do_not() -> None:
    async def main() -> None:
        a, b = ModelPeer("a", BROKE), ModelPeer("b", "Yes.")
        shared = chain(members(a, b))
        mine, other = shared.for_call(), shared.for_call()
        await collect(mine.reply(asking()))
        assert mine.name == "b"
        events = await collect(mine.reply(asking()))
        assert switches(events) == [] and len(a.requests) == 1
        await collect(other.reply(asking()))
        assert len(a.requests) == 2

    in_fake_time(main)


def test_a_model_whose_breaker_is_open_is_not_asked_until_it_may_be_tried_again() -> None:
    async def main() -> None:
        a, b = ModelPeer("a", REFUSED), ModelPeer("b", "Yes.")
        of = members(a, b)
        shared = chain(of)
        await collect(shared.for_call().reply(asking()))
        for _ in range(3):
            events = await collect(shared.for_call().reply(asking()))
            assert switches(events) == []
        assert len(a.requests) == 1
        await asyncio.sleep(SETTINGS.breaker.fatal_cool_down_s)
        a.steps = ("It is back.",)
        assert text_of(await collect(shared.for_call().reply(asking()))) == "It is back."
        assert of[0].health.usable

    in_fake_time(main)


def test_with_every_breaker_open_models_are_still_asked_with_little_patience() -> None:
    async def main() -> None:
        a = ModelPeer("a", REFUSED)
        only = chain(members(a))
        with pytest.raises(ProviderUnavailableError):
            await collect(only.reply(asking()))
        a.steps = (NEVER,)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(ProviderTimeoutError):
            await collect(only.reply(asking()))
        assert loop.time() - began == pytest.approx(SETTINGS.llm_first_s)
        a.steps = ("Yes.",)
        assert text_of(await collect(only.reply(asking()))) == "Yes."

    in_fake_time(main)


def test_a_reply_closed_early_counts_against_a_model_only_when_it_was_overdue() -> None:
    async def main() -> None:
        a = ModelPeer("a", NEVER)
        of = members(a)
        for wait_s, failures in ((1.0, 0), (SETTINGS.llm_first_s + 0.5, 1)):
            reply = chain(of).reply(asking())
            async with aclosing(reply):  # type: ignore[type-var] # it is a generator
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await anext(reply)
            assert of[0].health.failures == failures
            assert a.busy == 0
        assert of[0].health.abandoned == 1

    in_fake_time(main)


def test_a_reply_closed_between_words_is_no_failure() -> None:
    async def main() -> None:
        a = ModelPeer("a", "One two ", "three four ", NEVER)
        of = members(a)
        reply = chain(of).reply(asking())
        assert await anext(reply) == TextDelta("One two ")
        await reply.aclose()  # type: ignore[attr-defined] # it is a generator
        assert (of[0].health.failures, of[0].health.abandoned, a.busy) == (0, 1, 0)

    in_fake_time(main)


def test_readings_tell_requests_failures_and_the_breaker() -> None:
    async def main() -> None:
        a, b = ModelPeer("a", REFUSED), ModelPeer("b", "Yes.")
        of = members(a, b)
        await collect(chain(of).reply(asking()))
        readings = {**of[0].health.readings(), **of[1].health.readings()}
        assert readings['provider_requests_total{role="llm",provider="a"}'] == 1
        assert readings['provider_requests_failed_total{role="llm",provider="a"}'] == 1
        assert readings['provider_switches_total{role="llm",provider="a"}'] == 1
        assert readings['provider_breaker{role="llm",provider="a",state="open"}'] == 1
        assert readings['provider_breaker{role="llm",provider="b",state="closed"}'] == 1

    in_fake_time(main)
