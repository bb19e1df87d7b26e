"""A rules folder to write into, and a catalogue of fakes to check it with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from pipeline.errors import ConfigError
from pipeline.integrations.dialect import Asynchronous, Options
from pipeline.model.http import Response
from pipeline.ports import Script
from pipeline.rulebook.book import Rulebook
from pipeline.rulebook.catalogue import Catalogue, Known, Problem
from pipeline.rulebook.load import load


class FakeOptions(Options):
    server: str = ""
    api_key: SecretStr | None = None


class FakeDialect(Asynchronous):
    contract = "lorawan"
    device_template = "{application_id}:{device_id}"
    device_variables = ("application_id", "device_id", "dev_eui")
    repeat_window_s = 60
    options = FakeOptions

    def __init__(self, name: str) -> None:
        self.name = name


class FakeSigfox(FakeDialect):
    synchronous = True
    answer_timeout_s = 9.0
    device_template = "{device_id}"
    device_variables = ("device_id",)

    def answer(self, replies: Any, request: Any, options: Any) -> Response:
        raise NotImplementedError


class FakeRetry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    max: float = 60.0
    factor: int = 2


class FakeHttpSink(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    url: str
    method: Literal["POST", "PUT"] = "POST"
    concurrency: int = Field(default=4, ge=1)
    headers: dict[str, SecretStr] = {}
    retry: FakeRetry = FakeRetry()


class FakeFileSink(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str


def parse_chain(document: Mapping[str, Any], known: Known) -> tuple[Any, list[Problem]]:
    """Stands for route's: `when` is an expression with a fault where it says BAD."""
    problems = []
    for index, node in enumerate(document.get("nodes", [])):
        if node.get("to") and node["to"] not in known.sinks:
            problems.append(Problem(("nodes", index, "to"), f"there is no sink `{node['to']}`"))
        offset = node.get("when", "").find("BAD")
        if offset >= 0:
            problems.append(
                Problem(("nodes", index, "when"), "`BAD` is no name", "say what", offset)
            )
    return (None if problems else dict(document)), problems


@dataclass(frozen=True)
class FakeProblem:
    line: int
    column: int
    message: str


@dataclass(frozen=True)
class FakeFindings:
    problems: list[FakeProblem]
    functions: frozenset[str]


def check_script(script: Script) -> FakeFindings:
    """Stands for the engines': a line `SYNTAX` is wrong; functions are found by their words."""
    lines = script.source.split("\n")
    problems = [
        FakeProblem(number, line.index("SYNTAX") + 1, "unexpected word")
        for number, line in enumerate(lines, 1)
        if "SYNTAX" in line
    ]
    words = [line.split("(")[0].split() for line in lines if line.startswith("function ")]
    return FakeFindings(problems, frozenset(each[1] for each in words))


@dataclass
class Rules:
    folder: Path
    catalogue: Catalogue
    env: dict[str, str] = field(default_factory=dict)

    def write(self, path: str, text: str | bytes) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    def load(self) -> Rulebook:
        return load(self.folder, self.catalogue, self.env)

    def faults(self) -> list[str]:
        """All faults as text; fails where there are none."""
        with pytest.raises(ConfigError) as caught:
            self.load()
        return [str(fault) for fault in caught.value.faults]

    def integration(self, lines: str) -> str:
        """The one fault of an integration that has these lines beside what it must have."""
        given = {line.split(":")[0] for line in lines.splitlines()}
        needed = {"dialect": "dialect: ttn_v2", "authentication": "authentication: open"}
        text = lines + "\n" + "\n".join(needed[key] for key in needed if key not in given) + "\n"
        self.write("integrations/a.yaml", text)
        faults = self.faults()
        assert len(faults) == 1, faults
        return faults[0].removeprefix("integrations/a.yaml:")

    def with_catalogue(self, **changes: Any) -> None:
        self.catalogue = replace(self.catalogue, **changes)


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    """An empty rules folder."""
    folder = tmp_path / "rules"
    folder.mkdir()
    catalogue = Catalogue(
        dialects={
            "ttn_v2": FakeDialect("ttn_v2"),
            "tts_v3": FakeDialect("tts_v3"),
            "sigfox": FakeSigfox("sigfox"),
        },
        sinks={"http": FakeHttpSink, "file": FakeFileSink},
        parse_chain=parse_chain,
        check_script=check_script,
    )
    return Rules(folder, catalogue)
