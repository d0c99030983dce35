"""The model repository on disk: versions, installing and deploying them, their configurations."""
