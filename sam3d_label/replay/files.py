"""Names of the files in the folder of a replay; a module without imports, so that the command starts quickly."""

from __future__ import annotations

LOG, SETTINGS, ROWS, TABLE, SUMMARY = "log.jsonl", "replay.json", "rows", "requests.csv", "summary.json"
WRITTEN = (LOG, SETTINGS, ROWS, TABLE, SUMMARY)
