"""A program that decodes one recording from stdin and can be killed when it takes too long.

Only here in the service do C decoders process untrusted bytes. The kernel limits memory, the parent
process limits time. It writes float32 samples to stdout, or exits 3 with a reason.
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
