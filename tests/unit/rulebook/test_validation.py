from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    field_validator,
    model_validator,
)

from pipeline.rulebook.catalogue import Problem
from pipeline.rulebook.validation import validate


class Retry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    factor: float = 2.0
    first: int = Field(default=1, ge=1, le=60)


class Limit(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(description="what to call it", max_length=8)]
    mode: Literal["replace", "first", "last"] = "last"
    on: bool = True
    retry: Retry = Retry()
    many: list[Retry] = []
    either: Retry | Limit | None = None
    url: HttpUrl | None = None
    ratio: float = Field(default=0.5, gt=0, lt=1)
    tags: dict[str, str] = {}
    pattern: str = Field(default="a", pattern="^a")
    odd: int = 1
    level: Literal[1, 2] = 1

    @field_validator("odd")
    @classmethod
    def _is_odd(cls, odd: int) -> int:
        if odd % 2 == 0:
            raise ValueError("Must be odd, as 1 or 3")
        return odd

    @model_validator(mode="after")
    def _together(self) -> Model:
        if self.name == "solo" and self.on:
            raise ValueError("`solo` cannot be on")
        return self


def problems(**changes: object) -> list[Problem]:
    _, found = validate(Model, {"name": "x", **changes})
    return found


@pytest.mark.parametrize(
    ("changes", "path", "message", "suggestion"),
    [
        ({"nmae": 1}, ("nmae",), "unknown key `nmae`", "did you mean `name`?"),
        (
            {"retry": {"frist": 1}},
            ("retry", "frist"),
            "unknown key `frist`",
            "did you mean `first`?",
        ),
        (
            {"retry": {"zzz": 1}},
            ("retry", "zzz"),
            "unknown key `zzz`",
            "the keys here are `factor`, `first`",
        ),
        (
            {"many": [{}, {"frist": 1}]},
            ("many", 1, "frist"),
            "unknown key `frist`",
            "did you mean `first`?",
        ),
        ({"name": 5}, ("name",), "must be text", "put it in quotes"),
        ({"name": None}, ("name",), "must be text", ""),
        ({"name": "x" * 9}, ("name",), "must have at most 8 characters", ""),
        (
            {"mode": "repalce"},
            ("mode",),
            "must be one of `replace`, `first`, `last`",
            "did you mean `replace`?",
        ),
        ({"mode": 5}, ("mode",), "must be one of `replace`, `first`, `last`", ""),
        ({"on": "maybe"}, ("on",), "must be `true` or `false`", ""),
        ({"retry": 5}, ("retry",), "must be a mapping (`key: value`)", ""),
        ({"retry": {"first": 0}}, ("retry", "first"), "must be at least 1", ""),
        ({"retry": {"first": 61}}, ("retry", "first"), "must be at most 60", ""),
        ({"retry": {"first": 1.5}}, ("retry", "first"), "must be a whole number", ""),
        ({"retry": {"first": "x"}}, ("retry", "first"), "must be a whole number", ""),
        ({"retry": {"factor": "x"}}, ("retry", "factor"), "must be a number", ""),
        ({"ratio": 0}, ("ratio",), "must be greater than 0", ""),
        ({"ratio": 1}, ("ratio",), "must be less than 1", ""),
        ({"many": 5}, ("many",), "must be a list", ""),
        ({"tags": {"a": 1}}, ("tags", "a"), "must be text", "put it in quotes"),
        ({"url": "x y"}, ("url",), "must be an address like `https://example.com/path`", ""),
        ({"odd": 2}, ("odd",), "must be odd, as 1 or 3", ""),
        ({"pattern": "b"}, ("pattern",), "must match the pattern ^a", ""),
        ({"level": 3}, ("level",), "must be 1 or 2", ""),
        ({"name": "solo"}, (), "`solo` cannot be on", ""),
    ],
)
def test_each_kind_of_error_is_told_in_plain_words(
    changes: Any, path: tuple[str | int, ...], message: str, suggestion: str
) -> None:
    """A problem has the path in the document, plain words, and a suggestion where there is one."""
    found = [(each.path, each.message, each.suggestion) for each in problems(**changes)]

    assert found == [(path, message, suggestion)]


def test_a_missing_key_is_at_its_mapping_with_the_fields_description() -> None:
    """The mapping that lacks a key has the fault."""
    _, found = validate(Model, {}, ("outer",))

    assert found == [Problem(("outer",), "`name` is missing", "what to call it")]


def test_members_of_a_union_do_not_show_in_paths() -> None:
    """Pydantic's names of union members are in no document."""
    found = problems(either={"frist": 1, "size": 2})

    assert {each.path for each in found} <= {("either", "frist"), ("either", "size")}
    assert all("Retry" not in str(each) and "Limit" not in str(each) for each in found)


def test_an_empty_document_is_an_empty_mapping_and_a_list_is_none() -> None:
    """YAML's empty file is None."""
    assert validate(Retry, None)[0] == Retry()
    assert validate(Retry, [1])[1] == [Problem((), "must be a mapping (`key: value`)", "", 0)]


def test_all_problems_come_at_once() -> None:
    """Nothing stops at the first one."""
    assert len(problems(nmae=1, mode="x", retry={"first": 0})) == 3


@pytest.mark.parametrize("changes", [{"name": 5}, {"mode": "x"}, {"zzz": 1}, {"pattern": "b"}])
def test_no_words_of_pydantic_reach_the_user(changes: Any) -> None:
    """Users do not know our library."""
    for problem in problems(**changes):
        text = problem.message + problem.suggestion
        assert not any(word in text for word in ("Input", "Extra", "Literal", "validation"))
