#!/bin/sh
# Which runtime should a worker run in, tokio-uring or plain tokio? Prints the table of the answer;
# further arguments go to scripts/lab, --write-note FILE for one.
exec "$(dirname "$0")/../lab" --rows upgrades,echo64x100,bulk16 \
    --targets upsplice-epoll,upsplice-uring "$@"
