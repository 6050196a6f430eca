"""MuLaP: music and language pretraining with two streams that read one another."""
