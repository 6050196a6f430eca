"""The online endpoint: encoders and retrieval as Ray Serve deployments. It wires, raymtr works."""
