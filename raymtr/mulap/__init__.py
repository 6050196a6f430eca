"""MuLaP: music and language pretraining with two streams and co-attention between them."""
