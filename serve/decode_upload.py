"""A program that decodes one recording from stdin, to be killed when it takes too long.

Someone else's bytes meet C decoders here and nowhere else in the service. Memory is bounded by
the kernel, time by the parent. It writes float32 samples on stdout, or exits 3 with a reason.
"""

from __future__ import annotations

import json
import resource
import sys

from raymtr import audio
from raymtr.specs import AudioSpec, from_dict


def main() -> int:
    """`argv[1]`: `{"spec", "max_s", "memory_mb"}` as JSON."""
    told = json.loads(sys.argv[1])
    limit = told["memory_mb"] << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    spec = from_dict(AudioSpec, told["spec"])
    try:
        samples = audio.decode(sys.stdin.buffer.read(), spec, max_s=told["max_s"]).samples
    except audio.AudioError as error:
        sys.stderr.write(json.dumps([error.code, error.reason]))
        return 3
    sys.stdout.buffer.write(samples.tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
