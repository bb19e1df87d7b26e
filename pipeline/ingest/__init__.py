"""The door in and the API: HTTP requests → `uplink.received`, `device.events`; replies back."""

from pipeline.ingest.ids import time_ordered_ids
from pipeline.ingest.ingest import Ingest
from pipeline.ingest.keys import Key, KeyStore
from pipeline.ingest.settings import IngestSettings
from pipeline.ingest.status import StatusServer

__all__ = ["Ingest", "IngestSettings", "Key", "KeyStore", "StatusServer", "time_ordered_ids"]
