"""The audio tower and the text tower, which encode audio and text into one joint space."""
