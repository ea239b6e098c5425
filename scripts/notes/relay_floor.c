/* The least that a relay can do: what note 0035 compares everybody with.
 *
 *   relay_floor copy|splice PORT BACKEND_PORT       on 127.0.0.1, one thread, until it is killed
 *
 * It accepts, connects, and passes on whatever comes, either way, each end after its last byte. It looks at no byte,
 * sets no timer, counts nothing, and never gives a pipe back.
 *
 *   copy    recv(2) and send(2) through 64 KiB, one buffer for each direction
 *   splice  splice(2) through a pipe of 1 MiB, one for each direction
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SESSIONS = 4096, BUFFER = 64 << 10, PIPE = 1 << 20, EVENTS = 256, FILLS = 8 };

/* What is held is in the buffer from `at` on, or in the pipe. */
struct way { int from, to, pipe[2], ended, closed; long at, held; char *buffer; };
static struct session { struct way ways[2]; int fd[2]; } sessions[SESSIONS];
static int epoll, splices, used;
static struct sockaddr_in backend;

static int must(long result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return (int)result;
}

static long fill(struct way *way) {
    if (splices)
        return splice(way->from, NULL, way->pipe[1], NULL, PIPE, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    way->at = 0;
    return recv(way->from, way->buffer, BUFFER, MSG_DONTWAIT);
}

static long drain(struct way *way) {
    size_t held = (size_t)way->held;
    if (splices)
        return splice(way->pipe[0], NULL, way->to, NULL, held, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    return send(way->to, way->buffer + way->at, held, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* True when there may be more to do at once. */
static int pump(struct way *way) {
    for (int fills = 0; !way->closed; fills++) {
        while (way->held > 0) {
            long sent = drain(way);
            if (sent <= 0) {
                way->closed |= errno != EAGAIN;
                return 0;
            }
            way->at += sent;
            way->held -= sent;
        }
        if (way->ended) {
            shutdown(way->to, SHUT_WR);
            way->closed = 1;
        } else if (fills == FILLS) {
            return 1;
        } else {
            long got = fill(way);
            if (got < 0 && errno == EAGAIN)
                return 0;
            way->ended = got <= 0;
            way->held = got > 0 ? got : 0;
        }
    }
    return 0;
}

static void join(int down, int index) {
    int one = 1, up = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    must(connect(up, (struct sockaddr *)&backend, sizeof backend), "connect");
    must(fcntl(up, F_SETFL, O_NONBLOCK), "fcntl");
    setsockopt(up, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct session *session = &sessions[index];
    *session = (struct session){{{.from = down, .to = up}, {.from = up, .to = down}}, {down, up}};
    for (int side = 0; side < 2; side++) {
        struct way *way = &session->ways[side];
        if (splices) {
            must(pipe2(way->pipe, O_NONBLOCK | O_CLOEXEC), "pipe2");
            must(fcntl(way->pipe[0], F_SETPIPE_SZ, PIPE), "F_SETPIPE_SZ");
        } else {
            way->buffer = malloc(BUFFER);
        }
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = (unsigned)index};
        must(epoll_ctl(epoll, EPOLL_CTL_ADD, session->fd[side], &event), "epoll_ctl");
    }
}

static void leave(struct session *session) {
    for (int side = 0; side < 2; side++) {
        close(session->fd[side]);
        if (splices)
            close(session->ways[side].pipe[0]), close(session->ways[side].pipe[1]);
        free(session->ways[side].buffer);
    }
    session->fd[0] = 0;
}

static int listen_on(int port) {
    int one = 1, fd = must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    must(bind(fd, (struct sockaddr *)&at, sizeof at), "bind");
    must(listen(fd, 4096), "listen");
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    splices = strcmp(argv[1], "splice") == 0;
    signal(SIGPIPE, SIG_IGN);
    backend = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
    backend.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = listen_on(atoi(argv[2]));
    epoll = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    struct epoll_event events[EVENTS], listening = {.events = EPOLLIN, .data.u32 = -1u};
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening), "epoll_ctl");
    static unsigned char busy[SESSIONS];
    for (int more = 0;;) {
        int count = epoll_wait(epoll, events, EVENTS, more ? 0 : -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.u32 != -1u) {
                busy[events[i].data.u32] = 1;
                continue;
            }
            for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
                int index = 0;
                while (index < SESSIONS - 1 && sessions[index].fd[0])
                    index++;
                used = index >= used ? index + 1 : used;
                join(fd, index);
                busy[index] = 1;
            }
        }
        more = 0;
        for (int index = 0; index < used; index++) {
            struct session *session = &sessions[index];
            if (!busy[index] || !session->fd[0])
                continue;
            busy[index] = (unsigned char)(pump(&session->ways[0]) | pump(&session->ways[1]));
            more |= busy[index];
            if (session->ways[0].closed && session->ways[1].closed)
                leave(session);
        }
    }
}
