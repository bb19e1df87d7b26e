"""A `rules/` folder → a Rulebook, or a ConfigError with every fault at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigError, Fault
from pipeline.rulebook.book import Chosen, Rulebook
from pipeline.rulebook.catalogue import Catalogue
from pipeline.rulebook.checks import Checks
from pipeline.rulebook.folder import read_folder

FAULTS_MAX = 500


def load(folder: Path, catalogue: Catalogue, env: Mapping[str, str]) -> Rulebook:
    """Read and check all of a rules folder. `env` is what `${env:…}` reads.

    ConfigError: `faults` has all that is wrong, sorted by place. It reads files and does nothing
    else: scripts are compiled by the catalogue's `check_script` and not run.
    """
    files = read_folder(folder)
    if catalogue.expect_scripts is not None:
        catalogue.expect_scripts(files.languages)
    checks = Checks(folder, files, catalogue, env)
    settings = checks.settings()
    integrations = checks.integrations(settings)
    described = checks.described()
    checks.templates()
    sinks = checks.sinks(settings.tenant)
    chains = checks.chains()
    checks.tests()
    converters = checks.converters()  # last: what their scripts run in starts meanwhile
    if checks.faults:
        raise ConfigError(_bounded(checks.faults))
    return Rulebook(
        tenant=settings.tenant,
        folder=folder,
        version=files.version,
        integrations=integrations,
        converters=converters,
        chains=chains,
        sinks=sinks,
        devices=tuple(
            Chosen(pattern, name)
            for name, converter in converters.items()
            for pattern in converter.devices
        ),
        described=described,
        warnings=tuple(_bounded(checks.warnings)),
    )


def _bounded(faults: list[Fault]) -> list[Fault]:
    unique = sorted(set(faults))
    if len(unique) <= FAULTS_MAX:
        return unique
    rest = len(unique) - FAULTS_MAX
    return [*unique[:FAULTS_MAX], Fault("~", 0, 0, f"and {rest:,} more faults")]
