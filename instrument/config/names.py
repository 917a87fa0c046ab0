"""Names that files and people outside rely on."""

LOGGER_NAME = "bluesky-session"
