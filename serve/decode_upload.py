"""A child process that decodes one recording from stdin, isolated from the encoder.

It is the only process of the service in which C decoders read untrusted bytes. The kernel limits
its memory; the parent limits its time and kills it. It writes float32 samples to stdout, or exits
with status 3 and a reason on stderr.
"""

from __future__ import annotations

import json
import resource
import sys

from raymtr import audio
from raymtr.tower_specs import AudioSpec
from raymtr.validation import from_dict


def main() -> int:
    """`argv[1]`: `{"spec", "max_s", "memory_mb"}` as JSON."""
    arguments = json.loads(sys.argv[1])
    limit_bytes = arguments["memory_mb"] << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    spec = from_dict(AudioSpec, arguments["spec"])
    try:
        samples = audio.decode(sys.stdin.buffer.read(), spec, max_s=arguments["max_s"]).samples
    except audio.AudioError as error:
        sys.stderr.write(json.dumps([error.code, error.reason]))
        return 3
    sys.stdout.buffer.write(samples.tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
