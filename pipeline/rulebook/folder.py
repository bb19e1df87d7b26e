"""A `rules/` folder on the disk → its files, sorted into their kinds, and what does not belong.

Dot files and folders (editors, git, the links of Kubernetes' config maps) and read-me files are
passed over. A vendor's folder of TheThingsNetwork/lorawan-devices is one of converters as it
stands: its pictures are passed over, its scripts may lie one folder deeper, and what describes
devices is kept apart from what is a converter.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from pipeline.errors import Fault
from pipeline.rulebook.catalogue import suggest
from pipeline.rulebook.converter import LANGUAGES

FILES_MAX = 10_000
FILE_BYTES_MAX = 4_194_304  # of a script; YAML has its own, smaller limit
FOLDER_BYTES_MAX = 67_108_864

SETTINGS_FILE = "funicular.yaml"
FOLDERS = ("integrations", "converters", "chains", "sinks", "tables", "templates")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
CONVERTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # vendors choose their own
CONVERTER_RULE = (
    "names of vendors and converters are made of letters, digits, -, _ and ., start with a letter"
    " or digit, 64 at most"
)
SCHEMAS = (".proto", ".desc", ".binpb")  # of Protocol Buffers: text, or a FileDescriptorSet
_PICTURES = (".png", ".jpg", ".jpeg", ".svg", ".webp", ".gif", ".pdf")
# How files of lorawan-devices begin their lines that are no codec: vendors, devices, profiles.
_DESCRIBES = re.compile(
    rb"^(?:endDevices|firmwareVersions|macVersion|profileIDs)\s*:", re.MULTILINE
)
_CONVERTS = re.compile(
    rb"^(?:uplinkDecoder|downlinkEncoder|downlinkDecoder|codec|contract)\s*:", re.MULTILINE
)
NAME_RULE = "names are made of a-z, 0-9, - and _, start with a letter or digit, 64 at most"
_RESERVED = "downlink-"  # the destinations of downlinks (topics.py)
_TEST = "_test"


@dataclass(slots=True)
class Folder:
    """The files of a rules folder: contents by relative path, and their kinds by name."""

    contents: dict[str, bytes] = field(default_factory=dict, repr=False)
    settings: str | None = None
    integrations: dict[str, str] = field(default_factory=dict)  # name → file
    converters: dict[str, str] = field(default_factory=dict)
    chains: dict[str, str] = field(default_factory=dict)
    tests: dict[str, str] = field(default_factory=dict)  # name of the chain → file
    sinks: dict[str, str] = field(default_factory=dict)
    scripts: list[str] = field(default_factory=list)
    schemas: list[str] = field(default_factory=list)  # of Protocol Buffers
    descriptions: list[str] = field(default_factory=list)  # of devices, as lorawan-devices has them
    chain_scripts: list[str] = field(default_factory=list)
    tables: dict[str, str] = field(default_factory=dict)
    templates: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    @property
    def languages(self) -> frozenset[str]:
        """The languages of the scripts that stand in files of their own."""
        files = [*self.scripts, *self.chain_scripts]
        return frozenset(LANGUAGES[PurePath(file).suffix] for file in files)

    @property
    def version(self) -> str:
        """A short hash of every file's path and content."""
        digest = hashlib.sha256()
        for file in sorted(self.contents):
            raw = self.contents[file]
            digest.update(f"{len(file.encode())}:{file}{len(raw)}:".encode())
            digest.update(raw)
        return digest.hexdigest()[:12]


def read_folder(root: Path) -> Folder:
    """Return all files of a rules folder; what is wrong with them is in `faults`."""
    folder = Folder()
    if not root.is_dir():
        message = "there is no such folder" if not root.exists() else "this is no folder"
        folder.faults.append(Fault(str(root), 0, 0, message, "name a folder with integrations/"))
        return folder
    size = 0
    for file in _walk(root, folder):
        if len(folder.contents) >= FILES_MAX:
            folder.faults.append(Fault(file, 0, 0, f"more than {FILES_MAX:,} files"))
            break
        raw = _read(root / file, file, folder)
        if raw is None:
            continue
        size += len(raw)
        if size > FOLDER_BYTES_MAX:
            folder.faults.append(Fault(file, 0, 0, f"more than {FOLDER_BYTES_MAX:,} bytes in all"))
            break
        folder.contents[file] = raw
    for file in sorted(folder.contents):
        _sort(file, folder)
    for name, file in folder.tests.items():
        if name not in folder.chains:
            hint = suggest(name, folder.chains)
            message = f"tests the chain `{name}`, which is not there"
            folder.faults.append(Fault(file, 0, 0, message, hint))
    return folder


def _walk(root: Path, folder: Folder) -> Iterator[str]:
    for entry in _entries(root, folder, ""):
        if entry.is_file():
            yield entry.name
        elif entry.name not in FOLDERS:
            hint = suggest(entry.name, FOLDERS) or f"there are {', '.join(FOLDERS)}"
            folder.faults.append(Fault(f"{entry.name}/", 0, 0, "unknown folder", hint))
        elif entry.name == "converters":
            for vendor in _entries(root / entry.name, folder, "converters/"):
                path = f"converters/{vendor.name}"
                if vendor.is_file():
                    yield path
                else:
                    yield from _vendor(root, path, folder)
        else:
            yield from _files(root, entry.name, folder)


def _vendor(root: Path, path: str, folder: Folder) -> Iterator[str]:
    for entry in _entries(root / path, folder, f"{path}/"):
        inner = f"{path}/{entry.name}"
        for file in _files(root, inner, folder) if entry.is_dir() else (inner,):
            if not file.lower().endswith(_PICTURES):
                yield file


def _files(root: Path, path: str, folder: Folder) -> Iterator[str]:
    for entry in _entries(root / path, folder, f"{path}/"):
        if entry.is_file():
            yield f"{path}/{entry.name}"
        else:
            message = "folders are not read here"
            folder.faults.append(Fault(f"{path}/{entry.name}/", 0, 0, message, "move it up"))


def _entries(path: Path, folder: Folder, prefix: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            entries = [entry for entry in found if not _passed_over(entry.name)]
    except OSError as error:
        reason = error.strerror or "not readable"
        folder.faults.append(Fault(prefix or str(path), 0, 0, f"cannot be read: {reason}"))
        return []
    for entry in entries:
        if not (entry.is_file() or entry.is_dir()):
            message = "neither a file nor a folder"
            folder.faults.append(
                Fault(f"{prefix}{entry.name}", 0, 0, message, "a link that leads nowhere?")
            )
    entries = [entry for entry in entries if entry.is_file() or entry.is_dir()]
    return sorted(entries, key=lambda entry: entry.name)


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.lower().endswith(".md") or name.upper() == "README"


def _read(path: Path, file: str, folder: Folder) -> bytes | None:
    try:
        with path.open("rb") as opened:
            raw = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        reason = error.strerror or "not readable"
        folder.faults.append(Fault(file, 0, 0, f"cannot be read: {reason}"))
        return None
    if len(raw) > FILE_BYTES_MAX:
        folder.faults.append(Fault(file, 0, 0, f"more than {FILE_BYTES_MAX:,} bytes"))
        return None
    return raw


def _sort(file: str, folder: Folder) -> None:
    parent, _, leaf = file.rpartition("/")
    stem, dot, suffix = leaf.rpartition(".")
    kind = parent.split("/")[0]
    if not parent:
        if leaf == SETTINGS_FILE:
            folder.settings = file
        else:
            hint = suggest(leaf, [SETTINGS_FILE]) or "put it in one of the folders"
            folder.faults.append(Fault(file, 0, 0, "unknown file", hint))
        return
    if kind == "converters" and f"{dot}{suffix}" in LANGUAGES and parent != "converters":
        folder.scripts.append(file)
        return
    if kind == "converters" and leaf.endswith(SCHEMAS) and parent != "converters":
        folder.schemas.append(file)
        return
    if kind == "chains" and f"{dot}{suffix}" in LANGUAGES:
        folder.chain_scripts.append(file)
        return
    if kind == "tables" and suffix in {"csv", "yaml"}:
        _sort_table(stem, file, folder)
        return
    if kind == "templates" and suffix == "yml":
        suffix = "yaml"  # as The Things Stack's are called
    if suffix != "yaml":
        folder.faults.append(Fault(file, 0, 0, "unknown file", _rename(kind, stem or leaf, suffix)))
        return
    _sort_yaml(kind, parent, stem, file, folder)


def _sort_table(stem: str, file: str, folder: Folder) -> None:
    if not NAME.fullmatch(stem):
        message = f"`{stem}` cannot be a name: {NAME_RULE}"
        folder.faults.append(Fault(file, 0, 0, message, _proper(stem)))
    elif stem in folder.tables:
        message = f"there is {folder.tables[stem]} as well"
        folder.faults.append(Fault(file, 0, 0, message, "keep one of them"))
    else:
        folder.tables[stem] = file


def _sort_yaml(kind: str, parent: str, stem: str, file: str, folder: Folder) -> None:
    vendor = parent.partition("/")[2]
    if kind == "converters" and not vendor:
        if stem == "index":
            return  # of vendors, as lorawan-devices has it
        hint = f"move it to converters/<vendor>/{stem}.yaml"
        folder.faults.append(Fault(file, 0, 0, "a converter belongs to a vendor", hint))
        return
    if kind == "chains" and stem.endswith(_TEST):
        folder.tests[stem.removesuffix(_TEST)] = file
        return
    if kind == "converters":
        raw = folder.contents[file]
        if _DESCRIBES.search(raw) and not _CONVERTS.search(raw):
            folder.descriptions.append(file)
            return
    rule, said = (CONVERTER_NAME, CONVERTER_RULE) if vendor else (NAME, NAME_RULE)
    for name in (stem, vendor) if vendor else (stem,):
        if not rule.fullmatch(name):
            folder.faults.append(
                Fault(file, 0, 0, f"`{name}` cannot be a name: {said}", _proper(name))
            )
    if kind == "sinks" and stem.startswith(_RESERVED):
        message = f"names that start with `{_RESERVED}` are kept for downlinks"
        folder.faults.append(Fault(file, 0, 0, message, "give the sink another name"))
    kinds: Mapping[str, dict[str, str]] = {
        "integrations": folder.integrations,
        "converters": folder.converters,
        "chains": folder.chains,
        "sinks": folder.sinks,
        "templates": folder.templates,
    }
    kinds[kind][f"{vendor}/{stem}" if vendor else stem] = file


def _rename(kind: str, stem: str, suffix: str) -> str:
    if suffix in ("yml", "YAML", "YML"):
        return f"rename it to {stem}.yaml"
    if kind == "tables":
        return "only .csv and .yaml files are read here"
    if kind == "chains":
        return "only .yaml, .js, .lua and .tbel files are read here"
    if kind == "converters":
        return "only .yaml, .js, .lua, .tbel, .proto, .desc and .binpb files are read here"
    return "only .yaml files are read here"


def _proper(name: str) -> str:
    made = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")
    return f"call it {made}" if NAME.fullmatch(made) else ""
