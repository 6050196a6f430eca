"""The jobs, one file each: its arguments, its Ray pipeline, its output."""
