// Preloaded into upsplice: sets one more socket option than the program does.
//
//   NOTE_OPTION=LEVEL:NAME:VALUE   what to set, in numbers
//   NOTE_WHEN=nodelay              whenever the program sets TCP_NODELAY (a listener hands it on)
//   NOTE_WHEN=first                at the first fill from a socket: after the handshake
//   NOTE_WHEN=fill                 after every fill
//   NOTE_WHEN=timer                after every large fill, and back to 1 after NOTE_MILLISECONDS
//
// What the kernel refuses is said on standard error, so that nobody measures nothing.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DESCRIPTORS = 1 << 16 };
static int level, name, value, milliseconds;
static enum { NEVER, NODELAY, FIRST, FILL, TIMER } when;
// Descriptors that were asked already; set for pipes as well, which have no options.
static atomic_char asked[DESCRIPTORS], marked[DESCRIPTORS];
static int (*next_setsockopt)(int, int, int, const void *, socklen_t);
static ssize_t (*next_splice)(int, off_t *, int, off_t *, size_t, unsigned);
static int (*next_close)(int);

static void set(int fd, int to) {
    int before = errno;
    if (next_setsockopt(fd, level, name, &to, sizeof to) && errno != ENOTSOCK && errno != EBADF)
        fprintf(stderr, "socket option %d:%d: %s\n", level, name, strerror(errno));
    errno = before;
}

// Nobody may wait for ever for a mark: the bytes below it are let through after a while.
static void *release(void *unused) {
    for (;;) {
        usleep(milliseconds * 1000);
        for (int fd = 0; fd < DESCRIPTORS; fd++)
            if (atomic_exchange(&marked[fd], 0)) set(fd, 1);
    }
    return unused;
}

__attribute__((constructor)) static void start(void) {
    const char *names[] = {"never", "nodelay", "first", "fill", "timer"};
    const char *option = getenv("NOTE_OPTION"), *at = getenv("NOTE_WHEN");
    next_setsockopt = dlsym(RTLD_NEXT, "setsockopt");
    next_splice = dlsym(RTLD_NEXT, "splice");
    next_close = dlsym(RTLD_NEXT, "close");
    if (!option || !at || sscanf(option, "%d:%d:%d", &level, &name, &value) != 3) return;
    for (int place = 0; place < 5; place++)
        if (!strcmp(at, names[place])) when = place;
    pthread_t thread;
    milliseconds = getenv("NOTE_MILLISECONDS") ? atoi(getenv("NOTE_MILLISECONDS")) : 10;
    if (when == TIMER) pthread_create(&thread, NULL, release, NULL);
}

int setsockopt(int fd, int of, int which, const void *to, socklen_t length) {
    int answer = next_setsockopt(fd, of, which, to, length);
    if (when == NODELAY && of == IPPROTO_TCP && which == TCP_NODELAY) set(fd, value);
    return answer;
}

int close(int fd) {
    if (fd >= 0 && fd < DESCRIPTORS) asked[fd] = marked[fd] = 0;
    return next_close(fd);
}

ssize_t splice(int from, off_t *in, int to, off_t *out, size_t length, unsigned flags) {
    ssize_t moved = next_splice(from, in, to, out, length, flags);
    if (when < FIRST || moved <= 0 || from >= DESCRIPTORS) return moved;
    if (when == FIRST && asked[from]) return moved;
    if (when == TIMER && (moved < value || marked[from])) return moved;
    asked[from] = marked[from] = 1;
    set(from, value);
    return moved;
}
