"""Archive of a team's labels, clicks and versions, with a manifest to verify it."""
