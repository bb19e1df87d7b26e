from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.integrations.dialect import dialects
from pipeline.route.parse import chain_schema, check_chains, parse_chain
from pipeline.rulebook.book import Rulebook
from pipeline.rulebook.catalogue import Catalogue
from pipeline.rulebook.load import load
from pipeline.rulebook.schema import FILES, json_schema
from pipeline.sink.transport import config_models

FOLDER = Path(__file__).parents[3] / "rules"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """All that the real rooms hand in, but for the script engines, which are processes."""
    return Catalogue(
        dialects=dialects(),
        sinks=config_models(),
        parse_chain=parse_chain,
        check_chains=check_chains,
        chain_schema=chain_schema,
    )


@pytest.fixture(scope="module")
def book(catalogue: Catalogue) -> Rulebook:
    """The example folder, loaded with no environment at all."""
    return load(FOLDER, catalogue, {})


def test_the_example_folder_starts_as_it_is(book: Rulebook) -> None:
    """It has no fault and needs no environment."""
    assert book.tenant == "demo"
    assert set(book.integrations) == {
        *("ttn-thermostats", "tts-trackers", "sigfox-meters", "http-generic")
    }
    assert set(book.chains) == {"thermostats", "trackers", "meters"}
    assert set(book.sinks) == {"archive", "application"}


def test_every_door_has_a_key(book: Rulebook) -> None:
    """The demo's doors are not open, so that nobody copies open ones."""
    for integration in book.integrations.values():
        assert integration.authentication.kind != "open"
        assert integration.authentication.secret == "demo-key"


def test_links_that_can_only_answer_are_synchronous(book: Rulebook) -> None:
    """Sigfox and generic HTTP answer; the LoRaWAN servers take downlinks at any time."""
    synchronous = {name for name, each in book.integrations.items() if each.synchronous}

    assert synchronous == {"sigfox-meters", "http-generic"}


def test_every_converter_is_used_and_has_examples_for_each_way(book: Rulebook) -> None:
    """What is shown is run by `funicular test`."""
    used = {integration.converter for integration in book.integrations.values()}

    assert used == set(book.converters)
    for converter in book.converters.values():
        assert {example.routine for example in converter.examples} == {
            *("decode_uplink", "encode_downlink")
        }


def test_the_environment_changes_where_downlinks_go(catalogue: Catalogue) -> None:
    """The demo's addresses and keys are set from outside."""
    env = {"FUNICULAR_DEMO_TTS": "http://127.0.0.1:7", "FUNICULAR_DEMO_KEY": "other"}
    changed = load(FOLDER, catalogue, env)

    assert changed.integrations["tts-trackers"].options.server == "http://127.0.0.1:7"
    assert changed.integrations["sigfox-meters"].authentication.secret == "other"


def test_the_real_catalogue_has_schemas(catalogue: Catalogue) -> None:
    """All kinds of files have one, each dialect's options among them."""
    schemas = json_schema(catalogue)

    assert set(schemas) == set(FILES) - {"test"}
    assert schemas["integration"]["properties"]["dialect"]["enum"] == sorted(dialects())
