"""The files of a rules folder and a catalogue → a tenant's rules, every fault and every warning.

One file's fault never hides another's: names of faulty files are known to those that refer to
them, and each file is checked whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from pipeline.errors import Fault
from pipeline.part import Part
from pipeline.ports import Operation, Script
from pipeline.rulebook.book import ChainEntry, Converter, Described, Integration, SinkEntry
from pipeline.rulebook.catalogue import Catalogue, Known, Problem, suggest
from pipeline.rulebook.choosing import described_by
from pipeline.rulebook.converter import FUNCTIONS, Use, parse_converter
from pipeline.rulebook.environment import fill_in
from pipeline.rulebook.filled_template import filled_in, in_user_words, parse_any
from pipeline.rulebook.folder import NAME, NAME_RULE, Folder
from pipeline.rulebook.integration import IntegrationDefaults, parse_integration
from pipeline.rulebook.reader import Document, read_document, read_once
from pipeline.rulebook.tables import read_table
from pipeline.rulebook.template import Kind, ServiceTemplate, parse_template
from pipeline.rulebook.validation import validate


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(f"cannot be a name: {NAME_RULE}")
    return value


class FolderConfig(Part):
    """What a user writes in `funicular.yaml`; all of it may be left out."""

    tenant: Annotated[str, AfterValidator(_name)] = "default"
    defaults: IntegrationDefaults = IntegrationDefaults()


class Checks:
    """Reads each kind of file once; `faults` and `warnings` grow as it goes."""

    def __init__(
        self, root: Path, folder: Folder, catalogue: Catalogue, env: Mapping[str, str]
    ) -> None:
        self._root = root
        self._folder = folder
        self._catalogue = catalogue
        self._env = env
        # Values that could not be filled in have their fault; what else is wrong with them is
        # only its echo.
        self._unfilled: dict[str, set[tuple[str | int, ...]]] = {}
        self._templates: dict[str, ServiceTemplate | None] = {}
        self.faults: list[Fault] = list(folder.faults)
        self.warnings: list[Fault] = []
        self.known = Known(
            sinks=frozenset(folder.sinks),
            converters=frozenset(folder.converters),
            integrations=frozenset(folder.integrations),
            chains=frozenset(folder.chains),
            tables=self._tables(),
            scripts=self._sources(folder.chain_scripts),
        )

    def settings(self) -> FolderConfig:
        """Return what `funicular.yaml` says; the defaults where it is missing or faulty."""
        file = self._folder.settings
        document = self._open(file) if file else None
        if document is None:
            return FolderConfig()
        config, problems = validate(FolderConfig, document.value)
        self._add(document, problems)
        return config or FolderConfig()

    def integrations(self, settings: FolderConfig) -> dict[str, Integration]:
        """Return the integrations that have no fault."""
        made = {}
        for name, document, value in self._all(self._folder.integrations):
            whole, problems = self._of_template(document, value, "integration")
            self._add(document, problems)
            if whole is None:
                continue
            integration, problems = parse_integration(
                whole,
                name=name,
                tenant=settings.tenant,
                defaults=settings.defaults,
                catalogue=self._catalogue,
                known=self.known,
            )
            self._add(document, in_user_words(value, problems))
            if integration is not None:
                made[name] = integration
        return made

    def converters(self) -> dict[str, Converter]:
        """Return the converters that have no fault of their own; their scripts are checked too."""
        made = {}
        sources = self._sources(self._folder.scripts)
        schemas = {file: self._folder.contents[file] for file in self._folder.schemas}
        uses: dict[str, list[tuple[Document, Use]]] = defaultdict(list)
        for name, document, value in self._all(self._folder.converters, expressions=True):
            converter, used, problems = parse_converter(
                value,
                name=name,
                file=document.file,
                scripts=sources,
                line_of=document.line,
                codecs=self._catalogue.codecs,
                schemas=schemas,
            )
            self._add(document, problems)
            for use in used:
                uses[use.script.path].append((document, use))
            if converter is not None:
                made[name] = converter
        for each in uses.values():
            self._check_script(each[0][1].script, each)
        return made

    def described(self) -> dict[str, tuple[Described, ...]]:
        """Return the codecs that descriptions of devices name, by brand and model in lower case."""
        made = {}
        for file in self._folder.descriptions:
            document = self._parse(file)
            if document is None:
                continue
            _, vendor, leaf = file.split("/", 2)
            found, problems = described_by(document.value, vendor, self.known)
            self._add(document, problems)
            if found:
                made[f"{vendor}/{leaf.removesuffix('.yaml')}".lower()] = tuple(found)
        return made

    def sinks(self, tenant: str) -> dict[str, SinkEntry]:
        """Return the sinks that have no fault."""
        made = {}
        for name, document, value in self._all(self._folder.sinks):
            whole, problems = self._of_template(document, value, "sink")
            self._add(document, problems)
            if whole is None:
                continue
            transport, config, problems = self._sink(whole)
            self._add(document, in_user_words(value, problems))
            if config is not None:
                made[name] = SinkEntry(tenant, name, transport, config)
        return made

    def templates(self) -> None:
        """Check the folder's own templates, whether a sink uses them or not."""
        for name in self._folder.templates:
            self._template(name)

    def _of_template(
        self, document: Document, value: dict[str, Any], kind: Kind
    ) -> tuple[dict[str, Any] | None, list[Problem]]:
        """Return a document with its template filled in; None: it cannot be."""
        if "template" not in value:
            return value, []
        name = value["template"]
        known = sorted({*self._folder.templates, *self._catalogue.templates})
        if name not in known:
            made = {each: self._template(each) for each in known}
            fit = [each for each, template in made.items() if template and template.kind == kind]
            hint = suggest(str(name), fit) or f"there are {', '.join(fit)}"
            return None, [Problem(("template",), f"there is no template `{name}`", hint, 0)]
        template = self._template(name)
        if template is None:
            return None, []  # its own file has the fault
        if template.kind != kind:
            said = f"the template `{name}` is of {template.kind}s, and this is none"
            hint = f"`funicular templates` lists those of {kind}s"
            return None, [Problem(("template",), said, hint, 0)]
        return filled_in(template, value, referenced=document.replaced)

    def _template(self, name: str) -> ServiceTemplate | None:
        if name not in self._templates:
            file = self._folder.templates.get(name)
            if file is None:
                found, faults = read_document(name, self._catalogue.templates[name])
                assert found is not None, faults
                self._templates[name] = parse_template(found.value)[0]
            else:
                document = self._open(file)
                self._templates[name] = None
                # The Things Stack's repository has a list of its templates beside them.
                if document is not None and not isinstance(document.value, list):
                    template, problems = parse_any(document.value)
                    self._add(document, problems)
                    self._templates[name] = template
        return self._templates[name]

    def chains(self) -> dict[str, ChainEntry]:
        """Return the chains that have no fault."""
        made = {}
        documents = {}
        for name, document, value in self._all(self._folder.chains, expressions=True):
            config, problems = self._catalogue.parse_chain(value, self.known)
            self._add(document, problems)
            said = value.get("chain")
            if isinstance(said, str) and said != name:
                problem = Problem(
                    ("chain",),
                    f"the chain `{said}` stands in a file named {name}.yaml",
                    "name both alike",
                    0,
                )
                self._add(document, [problem])
            if config is not None:
                self._check_chain_scripts(document, config)
                made[name] = ChainEntry(name, document.file, config)
                documents[name] = document
        # A faulty chain may run others; without it they would look as if nothing ran them.
        whole = len(made) == len(self._folder.chains)
        if self._catalogue.check_chains is not None and whole:
            configs = {name: entry.config for name, entry in made.items()}
            for name, problems in self._catalogue.check_chains(configs).items():
                self._add(documents[name], problems)
        return made

    def tests(self) -> None:
        """Check the chains' tests; whether they pass is for who runs them."""
        check = self._catalogue.check_tests
        for file in self._folder.tests.values():
            document, faults = read_once(file, self._folder.contents[file])
            self.faults.extend(faults)
            if document is not None and check is not None:
                self._add(document, check(document.value, self.known))

    def _sink(self, value: Mapping[str, Any]) -> tuple[str, Any, list[Problem]]:
        transport = value.get("transport")
        model = self._catalogue.sinks.get(transport) if isinstance(transport, str) else None
        if model is None:
            known = sorted(self._catalogue.sinks)
            listed = "there are " + ", ".join(f"`{each}`" for each in known)
            if transport is None:
                return "", None, [Problem((), "`transport` is missing", listed)]
            hint = suggest(str(transport), known) or listed
            message = f"there is no transport `{transport}`"
            return "", None, [Problem(("transport",), message, hint, 0)]
        if "transport" not in model.model_fields:
            value = {key: item for key, item in value.items() if key != "transport"}
        config, problems = validate(model, value)
        return str(transport), config, problems

    def _tables(self) -> dict[str, Mapping[str, Any]]:
        tables: dict[str, Mapping[str, Any]] = {}
        for name, file in self._folder.tables.items():
            tables[name], faults = read_table(file, self._folder.contents[file])
            self.faults.extend(faults)
        return tables

    def _sources(self, files: Iterable[str]) -> dict[str, str]:
        sources = {}
        for file in files:
            raw = self._folder.contents[file]
            try:
                sources[file] = raw.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                line = raw[: error.start].count(b"\n") + 1
                self.faults.append(Fault(file, line, 1, "not UTF-8", "save the file as UTF-8"))
                sources[file] = ""
        return sources

    def _check_chain_scripts(self, document: Document, config: Any) -> None:
        """Compile what the nodes of a chain run; a script in its own file is at fault there."""
        check = self._catalogue.check_script
        scripts = getattr(config, "scripts", None)
        if check is None or scripts is None:
            return
        for path, script in scripts():
            for problem in check(script).problems:
                if script.path in self.known.scripts:
                    place = (script.path, problem.line, problem.column)
                    self.faults.append(Fault(*place, problem.message))
                else:
                    text = f"line {problem.line} of the script: {problem.message}"
                    self._add(document, [Problem(path, text)])

    def _check_script(self, script: Script, uses: Iterable[tuple[Document, Use]]) -> None:
        check = self._catalogue.check_script
        if check is None or not script.source:
            return
        findings = check(script)
        for problem in findings.problems:
            self.faults.append(Fault(script.path, problem.line, problem.column, problem.message))
        if findings.problems:
            return
        for document, use in uses:
            wanted = FUNCTIONS[script.language, use.operation]
            if not any(name in findings.functions for name in wanted):
                self._add(document, [_lacking(use, wanted, findings.functions)])

    def _all(
        self, files: Mapping[str, str], *, expressions: bool = False
    ) -> Iterable[tuple[str, Document, dict[str, Any]]]:
        for name, file in sorted(files.items()):
            document = self._open(file, expressions=expressions)
            if document is None:
                continue
            value = {} if document.value is None else document.value
            if isinstance(value, dict):
                yield name, document, value
            else:
                self._add(document, [Problem((), "must be a mapping (`key: value`)")])

    def _open(self, file: str, *, expressions: bool = False) -> Document | None:
        document = self._parse(file)
        if document is not None:
            problems = fill_in(document, self._root, self._env, expressions=expressions)
            self._add(document, problems)
            self._unfilled[file] = {problem.path for problem in problems}
        return document

    def _parse(self, file: str) -> Document | None:
        document, faults = read_document(file, self._folder.contents[file])
        self.faults.extend(faults)
        return document

    def _add(self, document: Document, problems: Iterable[Problem]) -> None:
        unfilled = self._unfilled.get(document.file, set())
        for problem in problems:
            if problem.path not in unfilled:
                found = self.warnings if problem.warns else self.faults
                found.append(document.fault(problem))


def _lacking(use: Use, wanted: tuple[str, ...], functions: Iterable[str]) -> Problem:
    what: Mapping[Operation, str] = {
        "decode_uplink": "decodes uplinks",
        "encode_downlink": "encodes downlinks",
        "decode_downlink": "decodes downlinks",
    }
    names = " or ".join(f"`{name}`" for name in wanted)
    near = next(filter(None, (suggest(name, functions) for name in wanted)), "")
    message = f"{use.script.path} has no function {names}, which {what[use.operation]}"
    return Problem(use.path, message, near, 0)
