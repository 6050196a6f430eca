"""The online endpoint: encoders and retrieval as Ray Serve deployments, built on raymtr."""
