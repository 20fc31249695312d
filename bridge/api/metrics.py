"""Prometheus metrics: counted from the calls' events, and asked of the parts that keep their own counters."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge.api.metric_help import help_of
from bridge.events import (
    AnsweredBy,
    BargeIn,
    CallAnswered,
    CallEnded,
    CallEvent,
    CallStarted,
    FarFlushed,
    FormCompleted,
    MediaSetUp,
    OneWayAudio,
    ProviderFailed,
    ToolCalled,
    TurnEnded,
    of_line,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Readings = Callable[[], Mapping[str, float]]
"""Gives the present values of one part, by name without the `offhook_` in front: `rtp_packets_late_total` is a
counter, any other name a gauge; labels go in braces, quoted or not: `pool_jobs_total{engine=stt}`.

Of each provider and role (`bridge.providers.health`): `provider_requests_total`, `provider_requests_failed_total`,
`provider_requests_abandoned_total` (the caller hung up or went on talking), `provider_switches_total` (calls that
left it for the next of their chain), `provider_breaker_opened_total`, and `provider_breaker`, which is 1 for the
present `state`: closed, open, half-open."""

MAX_TOOLS = 50
"""Tool names that get a label of their own; a model may make up any number, the others are `other`."""

_METHODS = frozenset(("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"))
_NAME = re.compile(r"([a-z][a-z0-9_]*)(?:\{([^{}]*)\})?")
_LABEL = re.compile(r'(\w+)\s*=\s*"?([^",]*)"?')
_SETUP_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_DELAY_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 5, 10)
_MOS = (1.5, 2.0, 2.5, 3.0, 3.3, 3.6, 3.8, 4.0, 4.1, 4.2, 4.3, 4.4)
_CALL_S = (5, 15, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """All metrics of one bridge, in a registry of their own."""

    def __init__(self) -> None:
        # Else every counter comes with a second one that says when it was made.
        disable_created_metrics()  # type: ignore[no-untyped-call] # prometheus_client gives it no types
        registry = self._registry = CollectorRegistry()
        # CPU, memory and open files of this process.
        ProcessCollector(registry=registry)
        self._live: dict[str, _Live] = {}
        self._tools: set[str] = set()
        self.started = Counter(
            "offhook_calls_started", "Calls that came in or were dialled.", ["direction", "agent"], registry=registry
        )
        self.ended = Counter(
            "offhook_calls_ended", "Calls that ended.", ["direction", "agent", "cause"], registry=registry
        )
        Gauge("offhook_calls_live", "Calls that ring or are up.", registry=registry).set_function(
            lambda: len(self._live)
        )
        self.setup = Histogram(
            "offhook_call_setup_seconds",
            "From the INVITE, or the request to dial, to the answer.",
            ["direction"],
            buckets=_SETUP_S,
            registry=registry,
        )
        self._trunks = _TrunkMetrics(registry)
        self.turns = Counter("offhook_turns", "Utterances.", ["agent", "speaker"], registry=registry)
        self.interrupted = Counter(
            "offhook_turns_interrupted", "Agent's utterances that were cut off.", ["agent"], registry=registry
        )
        self.reply = Histogram(
            "offhook_reply_delay_seconds",
            "End of the caller's speech to the agent's first speech on the wire.",
            ["agent"],
            buckets=_DELAY_S,
            registry=registry,
        )
        self.stages = Histogram(
            "offhook_reply_stage_seconds",
            "Where the reply delay went, of what was waited for: endpoint, stt, llm, tools, clause, tts, playout. "
            "The provider is that of stt, llm and tts, where one took part.",
            ["agent", "stage", "provider"],
            buckets=(0.01, 0.025, 0.05, *_DELAY_S),
            registry=registry,
        )
        self.barge_ins = Counter(
            "offhook_barge_ins",
            "Times a caller spoke over the agent; unconfirmed ones were false alarms.",
            ["agent", "confirmed"],
            registry=registry,
        )
        self.tools = Counter("offhook_tool_calls", "Tools the agent called.", ["tool", "ok"], registry=registry)
        self.forms = Counter(
            "offhook_forms_completed", "Forms that callers confirmed.", ["agent", "form"], registry=registry
        )
        self.provider_failures = Counter(
            "offhook_provider_failures", "Times a provider failed.", ["role", "provider"], registry=registry
        )
        self.provider_time = Histogram(
            "offhook_provider_seconds",
            "From the request to a provider's first text or audio; of stt, from the caller's pause to the text.",
            ["role", "provider"],
            buckets=(0.01, 0.025, 0.05, *_DELAY_S),
            registry=registry,
        )
        self.packets = Counter(
            "offhook_rtp_packets",
            "RTP packets of ended calls between us and whoever sends us the audio, by their fate.",
            ["fate"],
            registry=registry,
        )
        self.concealed = Counter(
            "offhook_rtp_concealed_seconds", "Audio made up for lost packets, in ended calls.", registry=registry
        )
        self.jitter = Histogram(
            "offhook_rtp_jitter_seconds",
            "Interarrival jitter of a call at its end, of the audio that we got.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16),
            registry=registry,
        )
        self.requests = Counter(
            "offhook_http_requests", "HTTP requests.", ["method", "route", "status"], registry=registry
        )
        self.request_time = Histogram(
            "offhook_http_request_seconds",
            "HTTP request to the start of its answer.",
            ["route"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
            registry=registry,
        )

        self._collected = _Collected(frozenset(family.name for family in registry.collect()))
        registry.register(self._collected)

    def observe(self, call_id: str, event: CallEvent) -> None:
        """Count one event of a call."""
        live = self._live.get(call_id, _UNKNOWN)
        direction, agent = live.direction, live.agent
        match event:
            case CallStarted():
                self._live[call_id] = live = _Live(event.direction, event.agent, event.trunk or NO_TRUNK)
                self.started.labels(event.direction, event.agent).inc()
                self._trunks.started(live)
            case CallAnswered():
                self.setup.labels(direction).observe(event.setup_ms / 1000)
                self._trunks.answered(live, event.setup_ms / 1000)
            case CallEnded():
                self._live.pop(call_id, None)
                self.ended.labels(direction, agent, event.cause.value).inc()
                self._count_media(event.quality)
                self._trunks.ended(live, event)
            case OneWayAudio():
                self._trunks.one_way(live, event)
            case MediaSetUp():
                self._trunks.media(live, event)
            case FarFlushed():
                self._trunks.flushed(live, event)
            case AnsweredBy():
                self._trunks.answered_by(live, event)
            case TurnEnded():
                self._count_turn(agent, event)
            case BargeIn():
                self.barge_ins.labels(agent, "yes" if event.confirmed else "no").inc()
            case ToolCalled():
                self.tools.labels(self._tool(event.name), "yes" if event.ok else "no").inc()
            case FormCompleted():
                self.forms.labels(agent, event.form).inc()
            case ProviderFailed():
                self.provider_failures.labels(event.role, event.provider).inc()
            case _:
                pass

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one HTTP request; `route` is the pattern, not the path."""
        self.requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self.request_time.labels(route).observe(seconds)

    def observe_provider(self, role: str, provider: str, seconds: float) -> None:
        """Count how long a provider took in one of its roles (`bridge.providers.health.Observe`)."""
        self.provider_time.labels(role, provider).observe(seconds)

    def register(self, readings: Readings) -> None:
        """Show what `readings` gives, each time the metrics are read."""
        self._collected.parts.append(readings)

    def render(self) -> bytes:
        """Everything as Prometheus text. Raises ValueError for a reading whose name is none, or taken."""
        return generate_latest(self._registry)

    def _tool(self, name: str) -> str:
        if name not in self._tools and len(self._tools) >= MAX_TOOLS:
            return "other"
        self._tools.add(name)
        return name

    def _count_turn(self, agent: str, turn: TurnEnded) -> None:
        self.turns.labels(agent, turn.speaker).inc()
        if turn.interrupted:
            self.interrupted.labels(agent).inc()
        delays = turn.delays
        if delays.reply_ms is not None:
            self.reply.labels(agent).observe(delays.reply_ms / 1000)
        for stage, value in delays.parts().items():
            self.stages.labels(agent, stage, delays.provider(stage)).observe(value / 1000)

    def _count_media(self, quality: Mapping[str, float]) -> None:
        """`quality` has the fields of `MediaQuality`; a leg that knows fewer leaves them out."""
        for fate in ("received", "sent", "lost", "late", "rejected"):
            # A duplicate makes `lost` negative by RFC 3550's own arithmetic; a counter can't go back.
            self.packets.labels(fate).inc(max(0.0, quality.get(f"packets_{fate}", 0.0)))
        self.concealed.inc(max(0.0, quality.get("concealed_ms", 0.0)) / 1000)
        if quality.get("packets_received"):
            self.jitter.observe(quality.get("jitter_ms", 0.0) / 1000)


@dataclass(frozen=True, slots=True)
class _Live:
    """What is counted by, of each live call."""

    direction: str
    agent: str
    trunk: str


NO_TRUNK = "none"
"""The trunk of calls that came from no configured one."""

_UNKNOWN = _Live("inbound", "", NO_TRUNK)


class _TrunkMetrics:
    """What a carrier is judged by: attempts, answers (their ratio is the ASR), causes, set-up time, MOS."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "offhook_trunk_attempts",
            "Calls that came from or were made to a trunk.",
            ["trunk", "direction"],
            registry=registry,
        )
        self._answered = Counter(
            "offhook_trunk_answered",
            "Calls of a trunk answered.",
            ["trunk", "direction"],
            registry=registry,
        )
        self._ended = Counter(
            "offhook_trunk_ended", "Ended calls of a trunk.", ["trunk", "direction", "cause"], registry=registry
        )
        self._setup = Histogram(
            "offhook_trunk_setup_seconds",
            "From the INVITE to the answer.",
            ["trunk", "direction"],
            buckets=_SETUP_S,
            registry=registry,
        )
        self._mos = Histogram(
            "offhook_trunk_mos",
            "Mean opinion score of a call by the E-model: of what we hear, and of what the far end hears. Of an "
            "Asterisk's call it is that of the caller's line, between the caller and Asterisk, where Asterisk knows "
            "it; else of the stretch between Asterisk and us.",
            ["trunk", "side"],
            buckets=_MOS,
            registry=registry,
        )
        self._packets = Counter(
            "offhook_trunk_rtp_packets",
            "RTP packets of a trunk's ended calls, received and lost: on the way to us; of an Asterisk's call on the "
            "caller's line, to Asterisk, where Asterisk knows it.",
            ["trunk", "fate"],
            registry=registry,
        )

        self._one_way = Counter(
            "offhook_trunk_one_way_audio",
            "Calls of a trunk whose audio flowed one way only, by what was seen.",
            ["trunk", "reason"],
            registry=registry,
        )

        self._media = Histogram(
            "offhook_trunk_media_setup_seconds",
            "From the first request for a call's audio until it flows, where the carrier has several transports.",
            ["trunk", "transport"],
            buckets=(0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1, 5),
            registry=registry,
        )
        self._flush = Histogram(
            "offhook_trunk_flush_seconds",
            "At a barge-in: until the far side had dropped the audio that it had not played.",
            ["trunk"],
            buckets=(0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.5),
            registry=registry,
        )
        self._answered_by = Counter(
            "offhook_trunk_answered_by",
            "Calls of ours by who took them, where the carrier tells machines from people.",
            ["trunk", "who"],
            registry=registry,
        )

    def media(self, call: _Live, event: MediaSetUp) -> None:
        self._media.labels(call.trunk, event.transport).observe(event.took_ms / 1000)

    def flushed(self, call: _Live, event: FarFlushed) -> None:
        self._flush.labels(call.trunk).observe(event.took_ms / 1000)

    def answered_by(self, call: _Live, event: AnsweredBy) -> None:
        self._answered_by.labels(call.trunk, event.who).inc()

    def one_way(self, call: _Live, event: OneWayAudio) -> None:
        self._one_way.labels(call.trunk, event.reason.value).inc()

    def started(self, call: _Live) -> None:
        self._attempts.labels(call.trunk, call.direction).inc()

    def answered(self, call: _Live, setup_s: float) -> None:
        self._answered.labels(call.trunk, call.direction).inc()
        self._setup.labels(call.trunk, call.direction).observe(setup_s)

    def ended(self, call: _Live, event: CallEnded) -> None:
        self._ended.labels(call.trunk, call.direction, event.cause.value).inc()
        for side, name in (("received", "mos"), ("sent", "mos_remote")):
            # 0 stands for a call too short, or a far end that reports nothing.
            if mos := of_line(event.quality, name):
                self._mos.labels(call.trunk, side).observe(mos)
        for fate in ("received", "lost"):
            # As of all calls: a duplicate makes `lost` negative.
            self._packets.labels(call.trunk, fate).inc(max(0.0, of_line(event.quality, f"packets_{fate}") or 0.0))


@dataclass(slots=True, eq=False)
class _Collected(Collector):
    """What other parts of the bridge count, read when the metrics are."""

    taken: frozenset[str]
    """Names of the metrics that are counted here."""
    parts: list[Readings] = field(default_factory=list)

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for readings in self.parts:
            for key, value in readings().items():
                name, labels = _parse(key)
                family = families.get(name)
                if family is None:
                    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                    family = families[name] = kind(f"offhook_{name}", help_of(name))
                    if family.name in self.taken:
                        raise ValueError(f"{name!r} is counted from the events already: choose another name")
                sample = family.name + "_total" if isinstance(family, CounterMetricFamily) else family.name
                family.add_sample(sample, labels, value)
        yield from families.values()


def _parse(key: str) -> tuple[str, dict[str, str]]:
    found = _NAME.fullmatch(key)
    if found is None:
        raise ValueError(f"{key!r} is no name of a metric: name, or name{{label=value}}")
    return found[1], dict(_LABEL.findall(found[2] or ""))
