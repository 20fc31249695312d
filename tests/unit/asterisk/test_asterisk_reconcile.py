"""What is found on an Asterisk, against what is known: whose it is, and whether anybody attends to it."""

import string

from hypothesis import given
from hypothesis import strategies as st

from bridge.asterisk.ari_events import Bridge, Channel
from bridge.legs.asterisk.joined import Pair
from bridge.legs.asterisk.names import Names, bridge_of, instance_of, is_made, joined_of, media_of, stem_of
from bridge.legs.asterisk.reconcile import Findings, Known, arguments_of, look_through

OWN = Names("offhook", "aaaaaaaa")
OTHER = Names("offhook", "bbbbbbbb")
NOTHING = Known(frozenset(), frozenset(), frozenset())


def caller(id: str, data: str = "offhook,agent=sales", app: str = "Stasis") -> Channel:
    return Channel(id, f"PJSIP/x-{id}", "Up", app_name=app, app_data=data)


def media(stem: str, data: str = "offhook") -> Channel:
    return Channel(media_of(stem), "UnicastRTP/x", "Up", app_name="Stasis", app_data=data)


def bridge(stem: str, *channels: str, name: str = OWN.bridge) -> Bridge:
    return Bridge(bridge_of(stem), name, "mixing", "simple_bridge", channels)


def nobodys(found: Findings) -> bool:
    return not (found.orphan_channels or found.orphan_bridges or found.strangers or found.callers)


def test_a_call_of_ours_is_left_alone() -> None:
    stem = OWN.new_leg()
    known = Known(frozenset({"1.0"}), frozenset({stem}), frozenset())
    found = look_through([caller("1.0"), media(stem)], [bridge(stem, "1.0", media_of(stem))], OWN, known)
    assert nobodys(found)
    assert found.present == {"1.0", media_of(stem)}


def test_what_is_left_of_a_call_that_is_over_is_an_orphan() -> None:
    stem = OWN.new_leg()
    found = look_through([media(stem)], [bridge(stem, media_of(stem))], OWN, NOTHING)
    assert found.orphan_channels == [media_of(stem)]
    assert found.orphan_bridges == [bridge_of(stem)]


def test_a_caller_nobody_attends_to_is_found_with_what_the_dialplan_said() -> None:
    found = look_through([caller("1.0", "offhook,agent=sales,campaign=spring sale")], [], OWN, NOTHING)
    assert [channel.id for channel in found.callers] == ["1.0"]
    assert arguments_of(found.callers[0]) == ("agent=sales", "campaign=spring sale")
    assert arguments_of(caller("1.0", "offhook")) == ()


def test_channels_and_bridges_of_others_are_not_looked_at() -> None:
    stem = OWN.new_leg()
    channels = [
        caller("1.0", "another,agent=sales"),
        caller("1.1", "offhook-two"),
        caller("1.2", "offhook", app="Dial"),
        media(stem, "another"),
    ]
    bridges = [
        Bridge("7bd933d6", "", "basic", "simple_bridge", ("1.2",)),
        bridge(stem, name="offhook-another"),
        Bridge("mine", OWN.bridge, "mixing", "simple_bridge", ()),
    ]
    assert nobodys(look_through(channels, bridges, OWN, NOTHING))


def test_what_another_process_made_is_told_apart_by_process() -> None:
    stem = OTHER.new_leg()
    channels = [caller("1.0"), media(stem), caller("1.1")]
    found = look_through(channels, [bridge(stem, "1.0", media_of(stem))], OWN, NOTHING)
    stranger = found.strangers[OTHER.instance]
    assert stranger.channels == [media_of(stem)]
    assert stranger.bridges == [bridge_of(stem)]
    assert [channel.id for channel in stranger.callers] == ["1.0"]
    assert [channel.id for channel in found.callers] == ["1.1"]
    assert not found.orphan_channels and not found.orphan_bridges


def test_joined_parties_are_no_callers_and_no_orphans() -> None:
    stem = OTHER.new_leg()
    id = joined_of(stem)
    pair = Bridge(id, OWN.joined, "mixing", "simple_bridge", ("1.0", f"{stem}-out"))
    channels = [caller("1.0"), Channel(f"{stem}-out", "PJSIP/y", "Up", app_name="Stasis", app_data="offhook")]
    found = look_through(channels, [pair], OWN, NOTHING)
    assert found.strangers[OTHER.instance].pairs == [Pair(id, ("1.0", f"{stem}-out"))]
    assert not found.callers and not found.strangers[OTHER.instance].channels
    known = Known(frozenset({"1.0", f"{stem}-out"}), frozenset(), frozenset({id}))
    assert nobodys(look_through(channels, [pair], OWN, known))


@given(
    app=st.text(string.ascii_lowercase + "-", min_size=1, max_size=20), suffix=st.sampled_from(["media", "bridge"])
)
def test_what_is_made_tells_whose_it_is(app: str, suffix: str) -> None:
    names = Names(app)
    stem = names.new_leg()
    id = f"{stem}-{suffix}"
    assert is_made(id) and names.is_own(id)
    assert stem_of(id) == stem
    assert instance_of(id) == names.instance


@given(id=st.text(max_size=40))
def test_any_id_can_be_read(id: str) -> None:
    stem_of(id)
    instance_of(id)
    is_made(id)


def test_channels_that_are_out_of_the_application_are_told_apart() -> None:
    channels = [caller("1.0"), caller("2.0", app="Queue"), caller("3.0", "another"), caller("4.0", "")]
    known = Known(frozenset({"1.0", "2.0"}), frozenset(), frozenset())
    found = look_through(channels, [], OWN, known)
    assert found.outside == {"2.0", "3.0", "4.0"}
    assert not found.callers
