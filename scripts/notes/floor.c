/* The least that a proxy can do for one upgrade: what note 0019 compares everybody with.
 *
 *   floor epoll|epoll-all|ring PORT BACKEND_PORT       on 127.0.0.1, one thread, until it is killed
 *
 * It accepts, receives a head, connects, passes the head on, and from then on passes on whatever comes,
 * each end after its last byte. It looks at no byte, sets no timer, writes no line, allocates nothing.
 *
 *   epoll      a bare loop on readiness, edge-triggered, no call that is not needed
 *   epoll-all  the same, with what a gateway owes besides: TCP_NODELAY upstream, and a socket that is
 *              watched from its first moment, since most clients are not benchmarks
 *   ring       io_uring: multishot accept into direct descriptors, socket, connect, send and receive as one
 *              chain of links, completions of inner links skipped, DEFER_TASKRUN, one system call per turn
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif

enum { SESSIONS = 1024, BYTES = 2048, EVENTS = 256, ENTRIES = 4096 };

static struct sockaddr_in backend;
static char buffers[SESSIONS][BYTES];

static int must(long result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return (int)result;
}

static int listen_on(int port, int nonblock) {
    int one = 1, fd = must(socket(AF_INET, SOCK_STREAM | nonblock, 0), "socket");
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    /* What is accepted inherits it. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    must(bind(fd, (struct sockaddr *)&at, sizeof at), "bind");
    must(listen(fd, 4096), "listen");
    return fd;
}

/* ---- epoll ---- */

static int epoll, watch_all;
/* Two sockets; `ended` and `watched` have a bit per side. A free one has `fd[0]` 0. */
static struct session { int fd[2], ended, watched; } sessions[SESSIONS];
static int unused[SESSIONS], unused_count, over[SESSIONS], over_count;

static void watch(int index, int side) {
    if (sessions[index].watched & 1 << side)
        return;
    sessions[index].watched |= 1 << side;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET,
                                .data.u32 = (unsigned)(2 * index + side)};
    if (watch_all)
        event.events |= EPOLLOUT | EPOLLPRI;
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, sessions[index].fd[side], &event), "epoll_ctl");
}

static void close_both(int index) {
    /* A client may be gone before there is an upstream: 0 is no socket of ours. */
    if (sessions[index].fd[1])
        close(sessions[index].fd[1]);
    close(sessions[index].fd[0]);
    sessions[index].fd[0] = 0;
    /* Not used again before the events that were taken together with this one are through. */
    over[over_count++] = index;
}

static void reach(int index, long head) {
    int one = 1, fd = must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
    sessions[index].fd[1] = fd;
    if (watch_all)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&backend, sizeof backend) < 0 && errno != EINPROGRESS)
        must(-1, "connect");
    /* On loopback the connection stands when connect(2) is back. */
    must(send(fd, buffers[index], (size_t)head, MSG_NOSIGNAL), "send");
    watch(index, 0);
    watch(index, 1);
}

static void readable(int index, int side) {
    struct session *session = &sessions[index];
    long got = recv(session->fd[side], buffers[index], BYTES, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got > 0 && !session->fd[1])
        return reach(index, got);
    if (got > 0 && send(session->fd[!side], buffers[index], (size_t)got, MSG_NOSIGNAL) == got)
        return;
    session->ended |= 1 << side;
    if (got < 0 || !session->fd[1] || session->ended == 3)
        return close_both(index);
    shutdown(session->fd[!side], SHUT_WR);
}

static void admit(int listener) {
    int fd;
    while (unused_count && (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int index = unused[--unused_count];
        sessions[index] = (struct session){{fd, 0}, 0, 0};
        if (watch_all)
            watch(index, 0);
        long got = recv(fd, buffers[index], BYTES, 0);
        if (got > 0)
            reach(index, got);
        else if (got < 0 && errno == EAGAIN)
            watch(index, 0);
        else
            close(fd), sessions[index].fd[0] = 0, over[over_count++] = index;
    }
}

static void run_epoll(int port) {
    int listener = listen_on(port, SOCK_NONBLOCK);
    epoll = must(epoll_create1(0), "epoll_create1");
    struct epoll_event events[EVENTS], listening = {.events = EPOLLIN, .data.u32 = -1u};
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening), "epoll_ctl");
    for (int i = 0; i < SESSIONS; i++)
        unused[unused_count++] = i;
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            unsigned data = events[i].data.u32;
            if (data == -1u)
                admit(listener);
            else if (sessions[data / 2].fd[0] && events[i].events & ~(unsigned)EPOLLOUT)
                readable((int)(data / 2), data % 2);
        }
        while (over_count)
            unused[unused_count++] = over[--over_count];
    }
}

/* ---- io_uring ---- */

enum { ACCEPT, HEAD, FROM_UPSTREAM, FROM_DOWNSTREAM, QUIET };
static int ring;
static unsigned *sq_tail, *sq_head, *cq_head, *cq_tail, sq_mask, cq_mask, queued;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static int side_ended[SESSIONS];

static struct io_uring_sqe *entry(int op, int slot, int what, int index, unsigned flags) {
    unsigned tail = *sq_tail + queued++;
    struct io_uring_sqe *sqe = &sqes[tail & sq_mask];
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = (unsigned char)op;
    sqe->fd = slot;
    sqe->user_data = (unsigned)(what << 16 | index);
    sqe->flags = (unsigned char)flags;
    return sqe;
}

/* An inner link: says nothing when it went well. */
enum { INNER = IOSQE_FIXED_FILE | IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS };

static void bytes(int op, int slot, int what, int index, unsigned flags, unsigned length) {
    struct io_uring_sqe *sqe = entry(op, slot, what, index, flags);
    sqe->addr = (unsigned long)buffers[index];
    sqe->len = length;
    sqe->msg_flags = MSG_NOSIGNAL;
}

static void accept_more(int listener) {
    struct io_uring_sqe *sqe = entry(IORING_OP_ACCEPT, listener, ACCEPT, 0, 0);
    sqe->ioprio = IORING_ACCEPT_MULTISHOT;
    sqe->file_index = IORING_FILE_INDEX_ALLOC;
}

static void close_slots(int index) {
    entry(IORING_OP_CLOSE, 0, QUIET, index, IOSQE_CQE_SKIP_SUCCESS)->file_index =
        (unsigned)(SESSIONS + index + 1);
    entry(IORING_OP_CLOSE, 0, QUIET, index, IOSQE_CQE_SKIP_SUCCESS)->file_index =
        (unsigned)(index + 1);
}

static void completed(int listener, struct io_uring_cqe *cqe) {
    int index = (int)(cqe->user_data & 0xffff), what = (int)(cqe->user_data >> 16), got = cqe->res;
    int down = index, up = SESSIONS + index;
    unsigned len = (unsigned)got;
    if (what == ACCEPT) {
        if (!(cqe->flags & IORING_CQE_F_MORE))
            accept_more(listener);
        if (got >= 0) {
            side_ended[got] = 0;
            bytes(IORING_OP_RECV, got, HEAD, got, IOSQE_FIXED_FILE, BYTES);
        }
    } else if (what == HEAD && got > 0) {
        struct io_uring_sqe *sqe =
            entry(IORING_OP_SOCKET, AF_INET, QUIET, index, INNER & ~IOSQE_FIXED_FILE);
        sqe->off = SOCK_STREAM;
        sqe->file_index = (unsigned)(up + 1);
        sqe = entry(IORING_OP_CONNECT, up, QUIET, index, INNER);
        sqe->addr = (unsigned long)&backend;
        sqe->off = sizeof backend;
        bytes(IORING_OP_SEND, up, QUIET, index, INNER, len);
        bytes(IORING_OP_RECV, up, FROM_UPSTREAM, index, IOSQE_FIXED_FILE, BYTES);
    } else if (what == HEAD) {
        entry(IORING_OP_CLOSE, 0, QUIET, index, IOSQE_CQE_SKIP_SUCCESS)->file_index =
            (unsigned)(down + 1);
    } else if (what == FROM_UPSTREAM && got > 0) {
        /* Strictly by turns, as the lab's sessions are: an answer is followed by a word of the client. */
        bytes(IORING_OP_SEND, down, QUIET, index, INNER, len);
        bytes(IORING_OP_RECV, down, FROM_DOWNSTREAM, index, IOSQE_FIXED_FILE, BYTES);
    } else if (what == FROM_DOWNSTREAM && got > 0) {
        bytes(IORING_OP_SEND, up, QUIET, index, INNER, len);
        bytes(IORING_OP_RECV, up, FROM_UPSTREAM, index, IOSQE_FIXED_FILE, BYTES);
    } else if (what == FROM_DOWNSTREAM && got == 0 && !side_ended[index]++) {
        entry(IORING_OP_SHUTDOWN, up, QUIET, index, INNER)->len = SHUT_WR;
        bytes(IORING_OP_RECV, up, FROM_UPSTREAM, index, IOSQE_FIXED_FILE, BYTES);
    } else if (what != QUIET) {
        close_slots(index);
    }
}

static void run_ring(int port) {
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                         IORING_SETUP_CQSIZE | IORING_SETUP_NO_SQARRAY,
                                .cq_entries = 2 * ENTRIES};
    ring = must(syscall(SYS_io_uring_setup, ENTRIES, &p), "io_uring_setup");
    size_t size = p.cq_off.cqes + p.cq_entries * sizeof *cqes;
    char *rings = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
                       IORING_OFF_SQ_RING);
    sqes = mmap(NULL, p.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    if (rings == MAP_FAILED || sqes == MAP_FAILED)
        must(-1, "mmap");
    sq_head = (unsigned *)(rings + p.sq_off.head), sq_tail = (unsigned *)(rings + p.sq_off.tail);
    cq_head = (unsigned *)(rings + p.cq_off.head), cq_tail = (unsigned *)(rings + p.cq_off.tail);
    sq_mask = p.sq_entries - 1, cq_mask = p.cq_entries - 1;
    cqes = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
    struct io_uring_rsrc_register table = {.nr = 2 * SESSIONS, .flags = IORING_RSRC_REGISTER_SPARSE};
    must(syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES2, &table, sizeof table), "files");
    struct io_uring_file_index_range range = {.off = 0, .len = SESSIONS};
    must(syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILE_ALLOC_RANGE, &range, 0), "range");

    int listener = listen_on(port, 0);
    accept_more(listener);
    for (;;) {
        unsigned submit = queued;
        __atomic_store_n(sq_tail, *sq_tail + queued, __ATOMIC_RELEASE);
        queued = 0;
        syscall(SYS_io_uring_enter, ring, submit, 1, IORING_ENTER_GETEVENTS, NULL, 0);
        unsigned head = *cq_head, tail = __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE);
        /* No more than fit in: each completion asks for four entries at most. */
        for (; head != tail && queued + 4 < ENTRIES; head++)
            completed(listener, &cqes[head & cq_mask]);
        __atomic_store_n(cq_head, head, __ATOMIC_RELEASE);
    }
}

int main(int count, char **words) {
    if (count != 4)
        return fprintf(stderr, "floor epoll|epoll-all|ring PORT BACKEND_PORT\n"), 2;
    backend = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(words[3]))};
    backend.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct rlimit files = {3 * SESSIONS, 3 * SESSIONS};
    setrlimit(RLIMIT_NOFILE, &files);
    watch_all = !strcmp(words[1], "epoll-all");
    strcmp(words[1], "ring") ? run_epoll(atoi(words[2])) : run_ring(atoi(words[2]));
}
