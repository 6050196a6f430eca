"""One page a job: its arguments, the Ray pipeline spelled out, the write."""
