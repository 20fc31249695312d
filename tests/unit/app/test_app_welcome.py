"""What `offhook serve` says when it is ready."""

from pathlib import Path

from bridge.configfile import parse
from bridge.serve import welcome

SHOP = """\
asterisk: [{name: pbx, url: "http://127.0.0.1:8088", username: offhook, password_env: P, app: desk}]
agents: {echo: {kind: echo}}
routes:
  - {trunk: pbx, to: "700", agent: echo}
  - {to: try, agent: echo}
"""


def test_the_call_to_try_is_one_that_is_answered(tmp_path: Path) -> None:
    assert "offhook call sip:try@127.0.0.1\n" in welcome(parse(SHOP, "offhook.yaml", tmp_path))


def test_asterisks_are_named_with_what_a_dialplan_calls_us(tmp_path: Path) -> None:
    assert "http://127.0.0.1:8088   application desk of Asterisk pbx" in welcome(parse(SHOP, "f", tmp_path))


def test_calls_of_dialplans_without_ari_are_named_with_where_they_come(tmp_path: Path) -> None:
    said = welcome(parse(SHOP + "audiosocket: {trunk: old-box}\n", "f", tmp_path))
    assert "TCP   0.0.0.0:9092   AudioSocket() of dialplans, trunk old-box" in said
