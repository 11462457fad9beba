"""Names of the files in the folder of a replay; without imports, so that the command can check them at once."""

from __future__ import annotations

LOG, SETTINGS, ROWS, TABLE, SUMMARY = "log.jsonl", "replay.json", "rows", "requests.csv", "summary.json"
WRITTEN = (LOG, SETTINGS, ROWS, TABLE, SUMMARY)
