/* The clients of the bench: any number of event streams in one thread, quick enough that a server
   on another core and not they set the pace.

   It reads commands from standard input, one a line, and answers each with one line of JSON. A
   client takes chunks and lines apart as a browser would, and looks for events whose data begins
   with @SEQUENCE,NANOSECONDS, : which event it is, and when (CLOCK_MONOTONIC) it was published.
   Sequences start at 1, so that a lost, repeated or misplaced event is counted for what it is.

   open GROUP COUNT PORT FLAGS PATH    open COUNT streams, in group 0 to 5; FLAGS are letters or -:
                                       r: when the stream ends, come back with Last-Event-ID
                                       s: a stream is open once the request is sent, without a head
                                       a: all connect at once, and not 128 at a time
   request COUNT PORT PATH             ask for a plain answer COUNT times, each on a new connection
   churn TOTAL ALIVE PORT PATH         open TOTAL streams, and close them in random order and ways
   pause GROUP, continue GROUP         stop reading, read again
   shut GROUP                          close a group's streams
   again GROUP                         close a group's streams, and come back with Last-Event-ID
   reset                               forget what was counted; the next event is number 1
   wait GROUP EVENTS SECONDS           until every client of the group has EVENTS, then as report
   ended SECONDS                       until no stream is open, then as report
   report                              what was counted, by group

   Usage: load [spin]. With spin it polls without sleeping, so that the server does not pay for
   waking it. It ends when its standard input does. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
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

#define LIMIT 65536
#define GROUPS 8
#define PLAIN_GROUP 7 /* of plain requests, which are over when the server closes */
#define CHURN_GROUP 6
#define AT_ONCE 128   /* connections that wait for their head at the same time */
#define LINE 128      /* as much of a line as we look at */
#define SOURCES 16    /* addresses to connect from, so that ports suffice */
#define BUCKETS 4096  /* of latencies: 64 to each doubling, so within 1.6 % */

enum state { FREE, CONNECTING, HEAD, BODY };
enum part { SIZE, DATA, CRLF, LAST, PLAIN };

struct client {
    int fd;
    uint8_t state, part, group, resume, has_event, has_id, closing_retry, pending, early;
    uint16_t length;        /* of the line, or of the head, so far */
    int64_t left;           /* bytes to come of the chunk */
    int64_t next;           /* sequence that is expected */
    int64_t sequence, made; /* of the event that is being read */
    char id[48], new_id[48];
    char line[LINE];
};

struct group {
    int64_t opened, left, ended, cut, failed, back, closing_retries, stream_resets;
    int64_t deliveries, bytes, gaps, repeats, reads, first, last, slowest;
    int64_t latencies[BUCKETS];
};

static struct client clients[LIMIT];
static struct group groups[GROUPS];
static char path[GROUPS][1024];
static int port[GROUPS], flag_sent[GROUPS];
static int top;            /* clients in use, or once in use */
static int waiting;        /* for their head */
static int set, spin;
static int64_t target;           /* of a wait: the events that each client is to have */
static int target_group, behind; /* the group's clients that do not have them yet */
static char buffer[1 << 18];

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int bucket_of(int64_t v) {
    if (v < 64)
        return v < 0 ? 0 : (int)v;
    int shift = 57 - __builtin_clzll(v);
    return ((shift + 1) << 6) + (int)(v >> shift) - 64;
}

static int64_t value_of(int bucket) {
    int shift = (bucket >> 6) - 1;
    return shift < 0 ? bucket : (int64_t)((bucket & 63) + 64) << shift;
}

static void count_event(struct client *c, int64_t at) {
    struct group *g = &groups[c->group];
    g->deliveries++;
    g->last = at;
    if (!g->first)
        g->first = at;
    if (at - c->made > g->slowest)
        g->slowest = at - c->made;
    g->latencies[bucket_of(at - c->made)]++;
    if (c->sequence < c->next) {
        g->repeats++;
        return;
    }
    g->gaps += c->sequence - c->next;
    if (c->group == target_group && c->next <= target && c->sequence >= target)
        behind--;
    c->next = c->sequence + 1;
}

static void take_line(struct client *c, const char *line, size_t n, int64_t at) {
    if (n && line[n - 1] == '\r')
        n--;
    if (n == 0) {
        if (c->has_id)
            strcpy(c->id, c->new_id);
        if (c->has_event)
            count_event(c, at);
        c->has_event = c->has_id = 0;
    } else if (n > 6 && memcmp(line, "data:", 5) == 0) {
        const char *mark = memchr(line, '@', n);
        char *end;
        if (mark) {
            c->sequence = strtoll(mark + 1, &end, 10);
            c->made = strtoll(end + 1, NULL, 10);
            c->has_event = 1;
        }
    } else if (n > 3 && memcmp(line, "id:", 3) == 0) {
        size_t skip = line[3] == ' ' ? 4 : 3, size = n - skip;
        if (size < sizeof c->new_id) {
            memcpy(c->new_id, line + skip, size);
            c->new_id[size] = 0;
            c->has_id = 1;
        }
    } else if (n >= 6 && memcmp(line, "retry:", 6) == 0) {
        c->closing_retry = 1;
    } else if (n >= 19 && memcmp(line, "event: stream-reset", 19) == 0) {
        groups[c->group].stream_resets++;
    }
}

/* The body, its chunks taken away. A line in one piece is read where it is; one that comes in
   pieces is put together, and of a long one only its beginning is kept. */
static void take_body(struct client *c, const char *p, size_t n, int64_t at) {
    while (n) {
        const char *end = memchr(p, '\n', n);
        size_t size = end ? (size_t)(end - p) : n;
        if (end && !c->length) {
            char first[LINE + 1]; /* strtoll must find an end */
            size_t kept = size < LINE ? size : LINE;
            memcpy(first, p, kept);
            first[kept] = 0;
            take_line(c, first, kept, at);
        } else {
            size_t room = LINE - 1 - c->length, kept = size < room ? size : room;
            memcpy(c->line + c->length, p, kept);
            c->length += kept;
            if (end) {
                c->line[c->length] = 0;
                take_line(c, c->line, c->length, at);
                c->length = 0;
            }
        }
        size += end != NULL;
        p += size;
        n -= size;
    }
}

/* Chunks. Returns 0 after the last one. */
static int take_chunks(struct client *c, const char *p, size_t n, int64_t at) {
    while (n) {
        if (c->part == PLAIN) {
            take_body(c, p, n, at);
            return 1;
        } else if (c->part == DATA) {
            size_t size = (int64_t)n < c->left ? n : (size_t)c->left;
            take_body(c, p, size, at);
            p += size;
            n -= size;
            c->left -= size;
            if (!c->left)
                c->part = CRLF;
        } else {
            char byte = *p++;
            n--;
            if (byte == '\r')
                continue;
            if (c->part == SIZE && byte != '\n')
                c->left = c->left * 16 + (byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10);
            else if (c->part == SIZE)
                c->part = c->left ? DATA : LAST;
            else if (c->part == CRLF)
                c->part = SIZE, c->left = 0;
            if (c->part == LAST)
                return 0;
        }
    }
    return 1;
}

static void watch(struct client *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)(c - clients) + 1};
    epoll_ctl(set, operation, c->fd, &event);
}

static int start(struct client *c) {
    static int turn;
    int one = 1;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        return -1;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + turn++ % SOURCES);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(port[c->group]);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from) ||
        (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)) {
        close(c->fd);
        return -1;
    }
    c->state = CONNECTING;
    c->part = PLAIN;
    c->length = c->left = c->sequence = c->has_event = c->has_id = c->closing_retry = 0;
    watch(c, EPOLL_CTL_ADD, EPOLLOUT);
    c->pending = 1;
    waiting++;
    return 0;
}

static void settle(struct client *c) {
    waiting -= c->pending;
    c->pending = 0;
}

static void opened(struct client *c) {
    groups[c->group].opened += c->pending;
    settle(c);
}

/* The connection is over; clean says that the server ended the stream as the protocol ends one. */
static void finish(struct client *c, int clean) {
    struct group *g = &groups[c->group];
    close(c->fd);
    settle(c);
    if (c->state == BODY) {
        g->ended += clean;
        g->cut += !clean;
        g->left++;
        g->closing_retries += c->closing_retry;
        if (c->resume && start(c) == 0) {
            g->back++;
            return;
        }
    } else {
        g->failed++;
    }
    c->state = FREE;
}

static void send_request(struct client *c) {
    char request[1400];
    int n = sprintf(request,
                    "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s\r\n",
                    path[c->group], port[c->group],
                    c->group == PLAIN_GROUP ? "Connection: close" : "Accept: text/event-stream");
    if (c->id[0])
        n += sprintf(request + n, "Last-Event-ID: %s\r\n", c->id);
    n += sprintf(request + n, "\r\n");
    c->state = HEAD;
    if (send(c->fd, request, n, MSG_NOSIGNAL) != n) {
        finish(c, 0);
        return;
    }
    if (flag_sent[c->group])
        opened(c);
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

/* The head: what is of interest in it is its status (HTTP/1.1 2xx) and whether chunks follow. It is
   matched byte by byte, as it may come in pieces. */
static size_t take_head(struct client *c, const char *p, size_t n) {
    static const char end[] = "\r\n\r\n", chunked[] = "hunked";
    for (size_t i = 0; i < n; i++) {
        if (c->sequence++ == 9 && p[i] != '2') {
            finish(c, 0);
            return n;
        }
        c->length = p[i] == chunked[c->length] ? c->length + 1 : p[i] == 'h';
        if (c->length == sizeof chunked - 1) {
            c->part = SIZE;
            c->length = 0;
        }
        c->left = p[i] == end[c->left] ? c->left + 1 : p[i] == '\r';
        if (c->left == 4) {
            c->state = BODY;
            c->left = c->length = 0;
            opened(c);
            return i + 1;
        }
    }
    return n;
}

static void readable(struct client *c) {
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    size_t head = 0;
    int64_t at = now();
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            finish(c, 0);
        return;
    }
    groups[c->group].bytes += n;
    groups[c->group].reads++;
    if (c->state == HEAD) {
        head = take_head(c, buffer, n);
    }
    if (c->state == BODY && !take_chunks(c, buffer + head, n - head, at))
        finish(c, 1);
}

/* Wait for sockets and take what they have. Returns whether a command has come. */
static int turn(int milliseconds) {
    struct epoll_event ready[1024];
    int command = 0, n = epoll_wait(set, ready, 1024, spin && milliseconds >= 0 ? 0 : milliseconds);
    for (int i = 0; i < n; i++) {
        struct client *c = &clients[ready[i].data.u32 - 1];
        if (!ready[i].data.u32)
            command = 1;
        else if (c->state == CONNECTING && ready[i].events & (EPOLLERR | EPOLLHUP))
            finish(c, 0);
        else if (c->state == CONNECTING)
            send_request(c);
        else if (c->state != FREE)
            readable(c);
    }
    return command;
}

static struct client *fresh(int group, int resume) {
    static int hint;
    for (int tried = 0; tried < LIMIT; tried++, hint++) {
        struct client *c = &clients[hint % LIMIT];
        if (c->state == FREE) {
            memset(c, 0, sizeof *c);
            c->group = group;
            c->resume = resume;
            c->next = 1;
            if (hint % LIMIT >= top)
                top = hint % LIMIT + 1;
            if (start(c) == 0)
                return c;
            break;
        }
    }
    groups[group].failed++;
    return NULL;
}

static void open_streams(int group, int count, const char *flags) {
    int64_t began = now(), failed = groups[group].failed;
    int resume = strchr(flags, 'r') != NULL, sent = strchr(flags, 's') != NULL;
    int at_once = strchr(flags, 'a') != NULL ? count : AT_ONCE;
    flag_sent[group] = sent;
    for (int i = 0; i < count || waiting;) {
        while (i < count && waiting < at_once) {
            fresh(group, resume);
            i++;
        }
        turn(100);
        if (now() - began > 120 * 1000000000LL)
            break;
    }
    printf("{\"opened\": %ld, \"failed\": %ld, \"seconds\": %.6f}\n",
           (long)(count - groups[group].failed + failed), (long)(groups[group].failed - failed),
           (now() - began) / 1e9);
}

static void shut(struct client *c, int reset) {
    struct linger at_once = {1, 0};
    if (reset)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    settle(c);
    close(c->fd);
    c->state = FREE;
}

/* Plain requests: an answer is there when the server closes, as it was asked to. */
static void request(int count) {
    int64_t began = now(), done = 0, failed = groups[PLAIN_GROUP].failed;
    groups[PLAIN_GROUP].left = 0;
    flag_sent[PLAIN_GROUP] = 0;
    for (int i = 0; done < count;) {
        while (i < count && i - done < AT_ONCE) {
            fresh(PLAIN_GROUP, 0);
            i++;
        }
        turn(100);
        done = groups[PLAIN_GROUP].left + groups[PLAIN_GROUP].failed - failed;
        if (now() - began > 120 * 1000000000LL)
            break;
    }
    printf("{\"answered\": %ld, \"failed\": %ld, \"seconds\": %.6f}\n", (long)groups[PLAIN_GROUP].left,
           (long)(groups[PLAIN_GROUP].failed - failed), (now() - began) / 1e9);
    memset(&groups[PLAIN_GROUP], 0, sizeof groups[PLAIN_GROUP]);
}

/* Whenever as many are open as may be, a quarter of them leaves, half of these with a reset. One in
   twenty is made to leave before its head has come. */
static void churn(int total, int alive) {
    int64_t began = now();
    int open = 0, made = 0, early = 0;
    srandom(1);
    memset(&groups[CHURN_GROUP], 0, sizeof groups[CHURN_GROUP]);
    while ((made < total || open) && now() - began < 300 * 1000000000LL) {
        int full = open >= alive;
        open = 0;
        for (int i = 0; i < top; i++) {
            struct client *c = &clients[i];
            if (c->group != CHURN_GROUP || c->state == FREE)
                continue;
            open++;
            if (c->state == HEAD ? c->early
                                 : c->state == BODY && (made == total || (full && random() % 4 == 0)))
                shut(c, random() % 2);
        }
        for (; made < total && open < alive && waiting < AT_ONCE; made++, open++) {
            struct client *c = fresh(CHURN_GROUP, 0);
            if (c && random() % 20 == 0)
                c->early = 1, early++;
        }
        turn(1);
    }
    printf("{\"opened\": %ld, \"failed\": %ld, \"early\": %d, \"left\": %d, \"seconds\": %.6f}\n",
           (long)groups[CHURN_GROUP].opened, (long)groups[CHURN_GROUP].failed, early, open,
           (now() - began) / 1e9);
}

static double quantile(const struct group *g, double part) {
    int64_t wanted = g->deliveries * part, seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += g->latencies[i]) > wanted)
            return value_of(i) / 1e3;
    return 0;
}

static void report(void) {
    const char *comma = "";
    printf("{");
    for (int i = 0; i < GROUPS; i++) {
        struct group *g = &groups[i];
        int64_t open = 0, least = -1, most = 0;
        for (int k = 0; k < top; k++) {
            struct client *c = &clients[k];
            if (c->state == FREE || c->group != i)
                continue;
            open++;
            if (least < 0 || c->next - 1 < least)
                least = c->next - 1;
            if (c->next - 1 > most)
                most = c->next - 1;
        }
        if (!g->opened)
            continue;
        printf("%s\"%d\": {\"open\": %ld, \"opened\": %ld, \"ended\": %ld, \"cut\": %ld, "
               "\"failed\": %ld, \"came_back\": %ld, \"closing_retries\": %ld, \"stream_resets\": %ld, ",
               comma, i, (long)open, (long)g->opened, (long)g->ended, (long)g->cut,
               (long)g->failed, (long)g->back, (long)g->closing_retries, (long)g->stream_resets);
        printf("\"deliveries\": %ld, \"bytes\": %ld, \"reads\": %ld, \"gaps\": %ld, "
               "\"repeats\": %ld, \"least\": %ld, \"most\": %ld, \"seconds\": %.6f, ",
               (long)g->deliveries, (long)g->bytes, (long)g->reads, (long)g->gaps,
               (long)g->repeats, (long)least, (long)most, (g->last - g->first) / 1e9);
        printf("\"first\": %.6f, \"last\": %.6f, \"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}",
               g->first / 1e9, g->last / 1e9, quantile(g, 0.5), quantile(g, 0.99),
               g->slowest / 1e3);
        comma = ", ";
    }
    printf("}\n");
}

static void await(int group, int64_t events, double seconds) {
    int64_t deadline = now() + seconds * 1e9;
    target = events;
    target_group = group;
    behind = 0;
    for (int i = 0; i < top; i++)
        behind += clients[i].state != FREE && clients[i].group == group && clients[i].next <= events;
    while (behind > 0 && now() < deadline)
        turn(100);
    target = 0;
    report();
}

static void reset(void) {
    for (int i = 0; i < GROUPS; i++) {
        int64_t opened = groups[i].opened;
        memset(&groups[i], 0, sizeof groups[i]);
        groups[i].opened = opened;
    }
    for (int i = 0; i < top; i++) {
        clients[i].next = 1;
        clients[i].closing_retry = 0;
    }
}

static void each(int group, char what) {
    for (int i = 0; i < top; i++) {
        struct client *c = &clients[i];
        if (c->state == FREE || c->group != group)
            continue;
        if (what == 's' || what == 'a')
            shut(c, 0);
        else
            watch(c, EPOLL_CTL_MOD, what == 'c' ? EPOLLIN : 0);
        if (what == 'a' && start(c) == 0)
            groups[group].back++;
    }
}

static int open_count(void) {
    int open = 0;
    for (int i = 0; i < top; i++)
        open += clients[i].state != FREE;
    return open;
}

static void obey(const char *line) {
    int group = 0, count = 0, alive = 0, to = 0;
    long events;
    double seconds;
    char flags[16], what[1024];
    if (sscanf(line, "open %d %d %d %15s %1023s", &group, &count, &to, flags, what) == 5) {
        strcpy(path[group & 7], what);
        port[group & 7] = to;
        open_streams(group & 7, count, flags);
    } else if (sscanf(line, "request %d %d %1023s", &count, &to, what) == 3) {
        strcpy(path[PLAIN_GROUP], what);
        port[PLAIN_GROUP] = to;
        request(count);
    } else if (sscanf(line, "churn %d %d %d %1023s", &count, &alive, &to, what) == 4) {
        strcpy(path[CHURN_GROUP], what);
        port[CHURN_GROUP] = to;
        flag_sent[CHURN_GROUP] = 0;
        churn(count, alive);
    } else if (sscanf(line, "wait %d %ld %lf", &group, &events, &seconds) == 3) {
        await(group & 7, events, seconds);
    } else if (sscanf(line, "ended %lf", &seconds) == 1) {
        int64_t deadline = now() + seconds * 1e9;
        while (open_count() && now() < deadline)
            turn(100);
        report();
    } else if (strncmp(line, "report", 6) == 0) {
        report();
    } else {
        if (strncmp(line, "reset", 5) == 0)
            reset();
        else if (sscanf(line, "pause %d", &group) == 1)
            each(group & 7, 'p');
        else if (sscanf(line, "continue %d", &group) == 1)
            each(group & 7, 'c');
        else if (sscanf(line, "shut %d", &group) == 1)
            each(group & 7, 's');
        else if (sscanf(line, "again %d", &group) == 1)
            each(group & 7, 'a');
        else
            fprintf(stderr, "load: no such command: %s", line);
        printf("{}\n");
    }
    fflush(stdout);
}

int main(int argc, char **argv) {
    struct rlimit files;
    struct epoll_event event = {.events = EPOLLIN};
    static char lines[1 << 16];
    size_t held = 0;
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    spin = argc > 1 && strcmp(argv[1], "spin") == 0;
    set = epoll_create1(0);
    epoll_ctl(set, EPOLL_CTL_ADD, 0, &event);
    for (;;) {
        if (!turn(-1))
            continue;
        ssize_t n = read(0, lines + held, sizeof lines - held - 1);
        char *line = lines, *end;
        if (n <= 0)
            return 0;
        held += n;
        lines[held] = 0;
        while ((end = strchr(line, '\n'))) {
            *end = 0;
            obey(line);
            line = end + 1;
        }
        held -= line - lines;
        memmove(lines, line, held);
    }
}
