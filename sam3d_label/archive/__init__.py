"""What a team has made, as one archive: labels, clicks, versions, and a manifest that can be checked."""
