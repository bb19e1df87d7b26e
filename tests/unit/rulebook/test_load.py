from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.rulebook import load as load_module


def test_an_empty_folder_is_a_rulebook_without_rules(rules: Any) -> None:
    """Nothing is needed; the tenant is `default`."""
    book = rules.load()

    assert (book.tenant, book.folder) == ("default", rules.folder)
    assert (book.integrations, book.converters, book.chains, book.sinks) == ({}, {}, {}, {})


def test_a_whole_folder(rules: Any) -> None:
    """Each kind of file ends in its part of the rulebook, under the folder's tenant."""
    rules.write("funicular.yaml", "tenant: shop\n")
    rules.write("integrations/i.yaml", "dialect: ttn_v2\nauthentication: open\nconverter: v/m\n")
    rules.write("converters/v/m.yaml", "uplinkDecoder: {fileName: m.js}\n")
    rules.write("converters/v/m.js", "function decodeUplink(input) {}\n")
    rules.write("chains/c.yaml", "chain: c\nnodes: [{to: s}]\n")
    rules.write("sinks/s.yaml", "transport: file\npath: x\n")
    book = rules.load()

    assert (book.tenant, len(book.version)) == ("shop", 12)
    assert book.integrations["i"].tenant == book.sinks["s"].tenant == "shop"
    assert book.integrations["i"].converter in book.converters
    assert set(book.chains) == {"c"}


def test_every_fault_of_every_file_comes_at_once(rules: Any) -> None:
    """Faults come sorted by file and place, and the exception says them all."""
    rules.write("chain/c.yaml", "")
    rules.write("integrations/b.yaml", "dialekt: x\nauthentication: open\n")
    rules.write("integrations/a.yaml", "dialect: [\n")
    rules.write("sinks/s.yaml", "transport: htp\n")
    with pytest.raises(ConfigError) as caught:
        rules.load()

    assert [(fault.file, fault.line) for fault in caught.value.faults] == [
        ("chain/", 0),
        ("integrations/a.yaml", 2),
        ("integrations/b.yaml", 1),
        ("integrations/b.yaml", 1),
        ("sinks/s.yaml", 1),
    ]
    assert str(caught.value).count("\n") == 4


def test_a_flood_of_faults_is_cut(rules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit the rest are counted."""
    monkeypatch.setattr(load_module, "FAULTS_MAX", 3)
    for name in "abcde":
        rules.write(f"sinks/{name}.yaml", "transport: x\n")

    assert len(rules.faults()) == 4
    assert rules.faults()[-1].endswith("and 2 more faults")
