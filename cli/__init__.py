"""The `nann` command, one file per command."""
