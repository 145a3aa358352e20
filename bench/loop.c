/* The yardstick: a server that does nothing but send() the same bytes to each of its clients.

   It accepts any number of event streams, answers their heads, and on GET /publish gives every one
   the events of a schedule: one frame per event, made once, one non-blocking send() per client.
   It has no ids to keep, no channels, no heartbeats, and does not notice a client that leaves until
   a send() fails. What another server needs more than this is its own cost.

   GET /publish?count=N&rate=N&burst=N&size=N
     count: events; rate: events a second, 0 for as fast as it goes; burst: events of one turn, each
     still sent by itself; size: bytes of data in an event.

   Usage: loop PORT. It ends when its standard input does. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LIMIT 65536 /* clients, and descriptors */

static int clients[LIMIT];
static int count;
static long deliveries, waits;

static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                           "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "2\r\n:\n\r\n";

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void sleep_until(int64_t due) {
    struct timespec t = {due / 1000000000LL, due % 1000000000LL};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

/* One event as a chunk, in the form in which ssekit sends it: the data says which event it is and
   when it was made, and is filled up to its size. */
static int make_frame(char *frame, long sequence, long size) {
    static char data[70000], block[70100];
    int length = snprintf(data, 64, "@%ld,%lld,", sequence, (long long)now());
    if (length < size) {
        memset(data + length, 'x', size - length);
        length = size;
    }
    data[length] = 0;
    length = sprintf(block, "data: %s\nid: 1750000000000-%ld\n\n", data, sequence);
    return sprintf(frame, "%x\r\n%s\r\n", length, block);
}

static void send_to_all(const char *frame, int length) {
    for (int i = 0; i < count; i++) {
        int sent = 0;
        while (sent < length) {
            ssize_t n = send(clients[i], frame + sent, length - sent, MSG_NOSIGNAL);
            if (n >= 0) {
                sent += n;
            } else if (errno == EAGAIN) {
                struct pollfd writable = {clients[i], POLLOUT, 0};
                waits++;
                poll(&writable, 1, 1000);
            } else {
                close(clients[i]);
                clients[i--] = clients[--count];
                break;
            }
        }
        deliveries += sent == length;
    }
}

static long option(const char *request, const char *name, long otherwise) {
    const char *found = strstr(request, name);
    return found ? atol(found + strlen(name)) : otherwise;
}

static void publish(int fd, const char *request) {
    static char frame[70200];
    long events = option(request, "count=", 1), rate = option(request, "rate=", 0);
    long burst = option(request, "burst=", 1), size = option(request, "size=", 80);
    int64_t began = now();
    if (size > 65536)
        size = 65536;
    deliveries = waits = 0;
    for (long sequence = 1; sequence <= events; sequence++) {
        if (rate > 0 && (sequence - 1) % burst == 0)
            sleep_until(began + (sequence - 1) * 1000000000LL / rate);
        send_to_all(frame, make_frame(frame, sequence, size));
    }
    char body[200], answer[400];
    int length = sprintf(body, "{\"events\": %ld, \"deliveries\": %ld, \"waits\": %ld}", events,
                         deliveries, waits);
    length = sprintf(answer,
                     "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                     "Content-Length: %d\r\nConnection: close\r\n\r\n%s",
                     length, body);
    if (send(fd, answer, length, MSG_NOSIGNAL) < 0)
        perror("answer");
    close(fd);
}

/* A request is small and comes in one piece from our own clients. */
static void answer(int fd) {
    char request[4096];
    ssize_t length = recv(fd, request, sizeof request - 1, 0);
    if (length <= 0) {
        close(fd);
        return;
    }
    request[length] = 0;
    if (strncmp(request, "GET /publish", 12) == 0) {
        publish(fd, request);
    } else if (strncmp(request, "GET /events", 11) != 0 || count == LIMIT ||
               send(fd, head, sizeof head - 1, MSG_NOSIGNAL) < 0) {
        close(fd);
    } else {
        clients[count++] = fd;
    }
}

int main(int argc, char **argv) {
    struct rlimit files;
    struct epoll_event event = {.events = EPOLLIN}, ready[256];
    struct sockaddr_in address = {.sin_family = AF_INET};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), set = epoll_create1(0);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        fail("bind");
    event.data.fd = listener;
    epoll_ctl(set, EPOLL_CTL_ADD, listener, &event);
    event.data.fd = 0;
    epoll_ctl(set, EPOLL_CTL_ADD, 0, &event);
    for (;;) {
        int n = epoll_wait(set, ready, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == 0)
                return 0;
            if (fd == listener) {
                if ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) < 0)
                    continue;
                event.data.fd = fd;
                epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
            } else {
                epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL);
                answer(fd);
            }
        }
    }
}
