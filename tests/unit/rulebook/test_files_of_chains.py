"""Files that chains take from: tables and scripts, through the whole check of a rules folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.convert.codec_port import CodecPort
from pipeline.errors import ConfigError
from pipeline.metrics import Registry
from pipeline.script import ScriptLimits
from pipeline.wiring import load_rules, script_port

CHAIN = """
chain: main
on: {messages: uplink}
nodes:
  - name: where
    look_up: {key: "${device.name}", into: metadata.site, table: TABLE}
  - name: word
    script: SCRIPT
  - {name: say, log: {message: "${metadata.site}"}}
"""


@pytest.fixture(scope="module")
def scripts() -> Iterator[CodecPort]:
    port = script_port(ScriptLimits(), Registry())
    yield port
    port.close()


def load(
    folder: Path, scripts: CodecPort, *, table: str = "sites", script: str = "{file: w.lua}",
    **files: str,
) -> Any:  # fmt: skip
    chain = CHAIN.replace("TABLE", table).replace("SCRIPT", script)
    for name, text in {"chains/main.yaml": chain, **files}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return load_rules([folder], scripts, {})["default"]


LUA = "function handle_message(message)\n  return message\nend\n"


def test_a_table_and_a_script_from_files(tmp_path: Path, scripts: CodecPort) -> None:
    """The nodes have what the files say; an edit of either is another version of the rules."""
    files = {"tables/sites.csv": "device,floor\na,1\n", "chains/w.lua": LUA}
    book = load(tmp_path, scripts, **files)
    look_up, script, _ = book.chains["main"].config.nodes

    assert look_up.look_up.table == {"a": {"floor": 1}}
    assert (script.compiled.path, script.compiled.language) == ("chains/w.lua", "lua")
    again = load(tmp_path, scripts, **{**files, "tables/sites.csv": "device,floor\na,2\n"})
    assert again.version != book.version


@pytest.mark.parametrize(
    ("files", "given", "said"),
    [
        ({"chains/w.lua": LUA}, {},
         "chains/main.yaml:6:66: there is no table `sites` (write tables/sites.csv)"),
        ({"chains/w.lua": LUA, "tables/site.yaml": "a: 1"}, {},
         "there is no table `sites` (did you mean `site`?)"),
        ({"tables/sites.csv": "k,v\na,1\n"}, {},
         "chains/main.yaml:8:20: there is no script chains/w.lua"),
        ({"tables/sites.csv": "k,v\na,1\n", "chains/w.lua": "function ("}, {},
         "chains/w.lua:1"),
        ({"tables/sites.csv": "k,v\na,1\n"}, {"script": "'return {'"},
         "chains/main.yaml:8:5: line 1 of the script: SyntaxError"),
        ({"tables/sites.csv": "k\n", "chains/w.lua": LUA}, {},
         "tables/sites.csv:1:1: the first line must name the columns"),
        ({"tables/sites.csv": "k,v\na,1\n", "tables/sites.yaml": "a: 1", "chains/w.lua": LUA}, {},
         "tables/sites.yaml: there is tables/sites.csv as well"),
        ({"tables/sites.csv": "k,v\na,1\n", "tables/x.txt": "", "chains/w.lua": LUA}, {},
         "tables/x.txt: unknown file (only .csv and .yaml files are read here)"),
    ],
)  # fmt: skip
def test_faults_of_files(
    tmp_path: Path, scripts: CodecPort, files: dict[str, str], given: dict[str, str], said: str
) -> None:
    """What is missing or wrong is said at its place."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, scripts, **given, **files)

    assert said in str(caught.value)
