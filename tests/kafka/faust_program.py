"""A Faust app for `faust -A tests.kafka.faust_program:app worker`.

In: `FAUST_TEST_LOG`, the URL of the log, and Faust's own settings in the environment. Its stages
are those of the kill tests: one with state, and one without, which reads what the first writes.
"""

from __future__ import annotations

import os

from pipeline.stream.faust import FaustSettings, make_app
from tests.contract.kill_program import Copy, Count

app = make_app([Count(), Copy()], FaustSettings.from_url(os.environ["FAUST_TEST_LOG"], os.environ))
