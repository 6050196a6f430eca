"""Raw datasets and folders become one catalog of tracks."""
