"""Gets what a run lacks, where that is allowed."""

import os
import shutil
import subprocess
import sys

from peers import Http2Proxy

HTTP2_PROXY = "http2-proxy@5.0.53"


def install(targets, packages):
    """Installs what is missing: system packages as root on Debian, npm packages into the cache.
    `packages` are wanted besides those of `targets`."""
    packages = set(packages)
    packages |= {target.package for target in targets if target.missing() and target.package}
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        # RUNLEVEL=1 keeps a package from starting its service.
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
        for verb in ("update", "install -y --no-install-recommends " + " ".join(sorted(packages))):
            argv = ["apt-get", "-q", *verb.split()]
            subprocess.run(argv, env=environment, check=False, stdout=sys.stderr)
    for target in targets:
        if isinstance(target, Http2Proxy) and target.missing() and shutil.which("npm"):
            target.modules.mkdir(parents=True, exist_ok=True)
            argv = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(target.modules)]
            subprocess.run([*argv, HTTP2_PROXY], check=False, stdout=sys.stderr)
