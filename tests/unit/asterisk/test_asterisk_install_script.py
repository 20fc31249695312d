"""`pbx/asterisk/install`: what it puts where, and what it leaves alone."""

import re
import stat
import subprocess
from pathlib import Path

import pytest

from bridge.configfile import parse

SHIPPED = Path(__file__).parents[3] / "pbx/asterisk"


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    return folder


def install(etc: Path, *options: str, shipped: Path = SHIPPED) -> str:
    done = subprocess.run(
        ["/bin/sh", str(shipped / "install"), "--etc", str(etc), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("options", [(), ("--fresh",)])
def test_a_dry_run_changes_nothing(etc: Path, options: tuple[str, ...]) -> None:
    (etc / "http.conf").write_text("; mine\n")
    (etc / "pjsip.conf").write_text("; mine\n")
    before = contents(etc)
    said = install(etc, "--dry-run", *options)
    assert contents(etc) == before
    assert sorted(path.name for path in etc.iterdir()) == ["http.conf", "pjsip.conf"]
    assert "offhook/extensions.conf" in said
    new = [line for line in said.splitlines() if line.startswith("new ")]
    assert len(new) == len(set(new))


def test_a_fresh_box_gets_every_file_and_what_was_there_is_kept(etc: Path) -> None:
    (etc / "http.conf").write_text("; the package's\n")
    (etc / "musiconhold.conf").write_text("; the package's\n")
    install(etc, "--fresh")
    for path in (*SHIPPED.glob("*.conf"), *(SHIPPED / "offhook").glob("*.conf")):
        assert (etc / path.relative_to(SHIPPED)).read_bytes() == path.read_bytes()
    assert (etc / "before-offhook/http.conf").read_text() == "; the package's\n"
    assert (etc / "musiconhold.conf").read_text() == "; the package's\n"


def test_an_existing_shop_gets_nothing_but_the_folder(etc: Path) -> None:
    (etc / "extensions.conf").write_text("[mine]\n#include offhook/settings.conf\n")
    said = install(etc)
    assert sorted(path.name for path in etc.iterdir()) == ["extensions.conf", "offhook"]
    assert f"{etc}/extensions.conf has   #include offhook/settings.conf" in said
    assert f"{etc}/extensions.conf needs #include offhook/extensions.conf" in said
    assert f"{etc}/ari.conf needs #include offhook/ari.conf" in said


@pytest.fixture
def freepbx(etc: Path) -> Path:
    for name in ("extensions_additional.conf", "extensions_custom.conf", "manager_custom.conf"):
        (etc / name).write_text("")
    return etc


def test_freepbx_is_told_its_custom_files(freepbx: Path) -> None:
    said = install(freepbx)
    assert f"{freepbx}/extensions_custom.conf needs #include offhook/settings.conf" in said
    assert f"{freepbx}/manager_custom.conf needs #include offhook/manager.conf" in said
    assert f"{freepbx}/ari_additional_custom.conf needs #include offhook/ari.conf" in said


def test_freepbx_is_no_fresh_box(freepbx: Path) -> None:
    before = contents(freepbx)
    done = subprocess.run(
        ["/bin/sh", str(SHIPPED / "install"), "--etc", str(freepbx), "--fresh"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "freepbx.md" in done.stderr) == (1, True)
    assert contents(freepbx) == before


def test_secrets_are_random_and_nobody_elses_to_read(etc: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    install(etc, "--fresh")
    install(other, "--fresh")
    names = {path.name for path in (etc / "offhook/secrets").iterdir()}
    assert names == {"ari.conf", "manager.conf", "phones.conf", "voicemail.conf"}
    for name in names:
        ours, theirs = (folder / "offhook/secrets" / name for folder in (etc, other))
        assert ours.read_text() != theirs.read_text()
        assert stat.S_IMODE(ours.stat().st_mode) == 0o600
    passwords = re.findall(r"^(?:password|secret) = (\w+)$", "".join(read_all(etc)), re.MULTILINE)
    assert len(set(passwords)) == 4
    assert all(len(password) >= 24 for password in passwords)


def read_all(etc: Path) -> list[str]:
    return [path.read_text() for path in sorted((etc / "offhook/secrets").iterdir())]


def test_a_second_run_changes_nothing(etc: Path) -> None:
    install(etc, "--fresh")
    before = contents(etc)
    said = install(etc, "--fresh")
    assert contents(etc) == before
    assert not re.search(r"^(new|update|moved|yours) ", said, re.MULTILINE)


def test_an_update_replaces_what_was_not_changed_and_leaves_the_rest(etc: Path, tmp_path: Path) -> None:
    install(etc, "--fresh")
    (etc / "offhook/settings.conf").write_text("; my choices\n")
    later = tmp_path / "later"
    (later / "offhook").mkdir(parents=True)
    for path in ("install", "http.conf", "offhook/settings.conf", "offhook/extensions.conf"):
        (later / path).write_bytes((SHIPPED / path).read_bytes() + (b"; newer\n" if path != "install" else b""))
    secrets = read_all(etc)
    said = install(etc, "--fresh", shipped=later)
    assert (etc / "offhook/settings.conf").read_text() == "; my choices\n"
    assert (etc / "offhook/settings.conf.new").read_text().endswith("; newer\n")
    assert (etc / "offhook/extensions.conf").read_text().endswith("; newer\n")
    assert (etc / "http.conf").read_text().endswith("; newer\n")
    assert "yours   " in said
    assert read_all(etc) == secrets


def test_a_file_that_the_operator_changed_after_the_installation_stays(etc: Path) -> None:
    install(etc, "--fresh")
    (etc / "pjsip.conf").write_text("; my trunk\n")
    install(etc, "--fresh")
    assert (etc / "pjsip.conf").read_text() == "; my trunk\n"
    assert not (etc / "before-offhook").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", str(SHIPPED / "install"), "--etc", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, str(tmp_path / "nowhere") in done.stderr) == (1, True)


def test_passwords_never_show_in_what_it_says(etc: Path) -> None:
    said = install(etc, "--fresh")
    for password in re.findall(r"= (\w{8,})", "".join(read_all(etc))):
        assert password not in said


def test_what_it_says_of_offhook_is_a_whole_configuration(etc: Path) -> None:
    said = install(etc)
    written = said[said.index("\nasterisk:") : said.index("\nOffhook's environment")]
    config = parse(written, "offhook.yaml", etc)
    assert ([one.name for one in config.asterisk], sorted(config.agents)) == (["pbx"], ["receptionist"])
    assert config.sip.port != 5060
    assert "\nexport OFFHOOK_ARI_PASSWORD=$(sudo sed" in said
