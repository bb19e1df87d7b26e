"""The API's keys and their file."""

from __future__ import annotations

import stat
from pathlib import Path

import orjson
import pytest
from structlog.testing import capture_logs

from pipeline.errors import UsageError
from pipeline.ingest import keys
from pipeline.ingest.keys import KeyStore


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def store(path: Path | None, clock: Clock | None = None) -> KeyStore:
    return KeyStore(path, now_ms=lambda: 1_000, clock_s=clock or Clock())


def test_a_key_is_shown_once_and_found_by_its_text(tmp_path: Path) -> None:
    """The text is found again, after a restart too; what is stored does not hold it, and only
    the owner can read the file.
    """
    path = tmp_path / "private" / "keys.json"

    key, text = store(path).create("acme", ["write", "read"], "dashboard")

    assert text.startswith(f"fk_{key.id}_")
    assert len(text.split("_", 2)[2]) >= 43  # 256 bits
    assert key.rights == ("read", "write")
    assert store(path).find(text) == key
    assert text.split("_", 2)[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert orjson.loads(path.read_bytes())["keys"][0]["note"] == "dashboard"
    assert {one.name for one in path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


def test_only_the_exact_text_is_found(tmp_path: Path) -> None:
    """A wrong secret, another key's id, and garbage find nothing."""
    kept = store(tmp_path / "k.json")
    first, text = kept.create("acme", ["read"])
    second, _ = kept.create("acme", ["read"])
    secret = text.split("_", 2)[2]

    for shown in [
        "",
        "fk_",
        secret,
        text[:-1],
        text + "x",
        text.upper(),
        f"fk_{second.id}_{secret}",
        f"fk_{first.id}_",
        f"fk_{first.id}_{first.digest}",
        "fk_\udcff_\udcff",
    ]:
        assert kept.find(shown) is None, shown


def test_an_unknown_id_compares_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such key, a digest is compared as well."""
    kept = store(tmp_path / "k.json")
    compared = []
    compare = keys.compare_digest
    monkeypatch.setattr(
        keys, "compare_digest", lambda a, b: compared.append(len(a)) or compare(a, b)
    )

    assert kept.find("fk_unknown_secret") is None
    assert compared == [64]


def test_a_revoked_key_is_listed_and_not_found(tmp_path: Path) -> None:
    """Revoking is for good, and stays visible; revoking again changes nothing."""
    kept = store(tmp_path / "k.json")
    key, text = kept.create("acme", ["read"])

    revoked = kept.revoke(key.id)

    assert kept.find(text) is None
    assert kept.configured
    assert kept.list() == [revoked]
    assert revoked.revoked_ms == 1_000
    assert kept.revoke(key.id) == revoked


def test_changes_of_others_are_seen_within_a_second(tmp_path: Path) -> None:
    """Keys that another process made or revoked count without a restart, and the file is
    looked at at most once a second.
    """
    path, clock = tmp_path / "k.json", Clock()
    running = store(path, clock)
    assert not running.configured

    key, text = store(path).create("acme", ["read"])
    assert running.find(text) is None
    clock.seconds = 1.0
    assert running.find(text) is not None
    store(path).revoke(key.id)
    assert running.find(text) is not None
    clock.seconds = 2.0
    assert running.find(text) is None


def test_two_writers_do_not_lose_a_key(tmp_path: Path) -> None:
    """A writer reads the file again before it changes it."""
    path = tmp_path / "k.json"
    first, second = store(path), store(path)

    first.create("acme", ["read"])
    second.create("acme", ["read"])

    assert len(first._read()) == 2


def test_a_broken_file_closes_nothing_and_opens_nothing(tmp_path: Path) -> None:
    """While the file is broken or gone, a running process keeps the keys that it has; a new one
    refuses to start.
    """
    path, clock = tmp_path / "k.json", Clock()
    running = store(path, clock)
    _, text = running.create("acme", ["read"])

    path.write_text("{broken")
    clock.seconds = 1.0
    with capture_logs() as logs:
        assert running.find(text) is not None
    assert len(logs) == 1
    with pytest.raises(UsageError, match="not a file of keys"):
        store(path)

    path.unlink()
    clock.seconds = 2.0
    assert running.find(text) is None
    assert running.configured


@pytest.mark.parametrize(
    ("tenant", "rights", "note", "said"),
    [
        ("acme", ["reed"], "", "'reed' is no right; there are read, write, downlink, admin"),
        ("acme", [], "", "at least one right"),
        ("", ["read"], "", "no tenant"),
        ("a/b", ["read"], "", "no tenant"),
        ("acme", ["read"], "x" * 201, "note"),
    ],
)
def test_bad_keys_are_refused(
    tmp_path: Path, tenant: str, rights: list[str], note: str, said: str
) -> None:
    """A key that could not be used is not made, and the file not touched."""
    path = tmp_path / "k.json"

    with pytest.raises(UsageError, match=said):
        store(path).create(tenant, rights, note)
    assert not path.exists()


def test_what_is_not_there_cannot_be_changed(tmp_path: Path) -> None:
    """No such key, no file, and a place that cannot be written are said in a sentence."""
    with pytest.raises(UsageError, match="no key 'abc'"):
        store(tmp_path / "k.json").revoke("abc")
    with pytest.raises(UsageError, match="keys_file"):
        store(None).create("acme", ["read"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot"):
        store(tmp_path / "file" / "k.json").create("acme", ["read"])


def test_a_key_does_not_show_its_digest(tmp_path: Path) -> None:
    """A repr is fit for a log."""
    key, _ = store(tmp_path / "k.json").create("acme", ["read"])

    assert key.digest not in repr(key)
