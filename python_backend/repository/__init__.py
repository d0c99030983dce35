"""The model repository on disk: its versions and their configurations, installation and deployment."""
