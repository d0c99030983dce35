"""The `nann` command, one file a command."""
