"""The command `funicular`. Each command imports what it needs, so that `--version` is quick.

Exit codes: 0 fine, 1 something failed, 2 the user's mistake.
"""

from __future__ import annotations

import click

from pipeline import __version__
from pipeline.cli.benching import bench
from pipeline.cli.comparing import diff
from pipeline.cli.dead_letters import dead_letters
from pipeline.cli.demo import demo
from pipeline.cli.devices import devices
from pipeline.cli.downlinks import downlinks
from pipeline.cli.explaining import explain
from pipeline.cli.graphing import graph
from pipeline.cli.importing import import_rules
from pipeline.cli.integrations import integrations
from pipeline.cli.keys import keys
from pipeline.cli.new import new
from pipeline.cli.publish import publish
from pipeline.cli.rules import check, check_examples
from pipeline.cli.run import run, worker
from pipeline.cli.schema import schema
from pipeline.cli.templates import templates
from pipeline.cli.topics import topics
from pipeline.cli.trying import decode, encode, send
from pipeline.interpreter import tune_interpreter


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", "-V", message="funicular %(version)s")
def main() -> None:
    """Carry messages from IoT devices up to applications, and commands back down.

    \b
    Begin with:
      funicular demo                 see it work, with a simulated fleet
      funicular check                is my rules/ folder right?
      funicular test                 do its converters and chains do what their tests say?
      funicular run                  run it on this machine
    """
    tune_interpreter()


for command in (
    run,
    worker,
    check,
    check_examples,
    decode,
    encode,
    explain,
    diff,
    graph,
    send,
    integrations,
    demo,
    bench,
    downlinks,
    devices,
    dead_letters,
    import_rules,
    keys,
    new,
    publish,
    templates,
    topics,
    schema,
):
    main.add_command(command)
