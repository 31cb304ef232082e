/* Open-loop load over HTTP/1.1: requests leave at a fixed rate, whatever becomes of those before them.
 *
 *     open_load PORT HOST PATH CONNECTIONS RATE SECONDS TIMEOUT_MS
 *
 * Each arrival takes the connection that has been idle longest. One that has had no answer for TIMEOUT_MS is closed and
 * made anew, as clients do that give up. An arrival that finds no idle connection counts as `unsent`: its client waits
 * still. RATE 0 is a closed loop: each connection sends the next request when it has its answer.
 *
 * Connections come from many addresses of 127.0.0.0/8, since each closed one keeps its port for a minute.
 * Prints one JSON object: counts, and quantiles of good answers (status 200 within the time-out) in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum { SLOTS_MS = 1024, EVENTS = 1024, BUFFER = 65536, SOURCES = 250, BURST = 4096 };
enum phase { CONNECTING, IDLE, WAITING };

struct connection {
    int fd;
    enum phase phase;
    int64_t since;                     /* microseconds: when the request left, or the connect began */
    struct connection *next, *before;  /* in `idle` (one way) or in `waiting` (both ways) */
    long missing;                      /* of the answer's body; -1 while its head has not come */
    int status;
};

struct line { struct connection *first, *last; };

static struct line idle, waiting;
static int epoll_fd, port;
static char request[1024];
static size_t request_bytes;
static int64_t timeout_us;
static long sent, good, refused, other, timed_out, cut, unsent, not_connected, opened;
static uint32_t *good_us;
static long good_room;
static int is_counting;

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void append(struct line *line, struct connection *c) {
    c->next = NULL;
    c->before = line->last;
    if (line->last) line->last->next = c; else line->first = c;
    line->last = c;
}

static void take_out(struct line *line, struct connection *c) {
    if (c->before) c->before->next = c->next; else line->first = c->next;
    if (c->next) c->next->before = c->before; else line->last = c->before;
    c->next = c->before = NULL;
}

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, operation, c->fd, &event)) { perror("epoll_ctl"); exit(1); }
}

static void begin(struct connection *c) {
    static unsigned number;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) { perror("socket"); exit(1); }
    from.sin_addr.s_addr = htonl(0x7f000200u + 1 + number++ % SOURCES);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(port);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) { perror("bind"); exit(1); }
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) { perror("connect"); exit(1); }
    opened++;
    c->phase = CONNECTING;
    c->since = now_us();
    append(&waiting, c);
    watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

static void begin_again(struct connection *c) {
    if (c->phase != IDLE) take_out(&waiting, c); else take_out(&idle, c);
    close(c->fd);
    begin(c);
}

static void send_one(struct connection *c, int64_t now) {
    take_out(&idle, c);
    c->phase = WAITING;
    c->since = now;
    c->missing = -1;
    append(&waiting, c);
    sent += is_counting;
    if (send(c->fd, request, request_bytes, MSG_NOSIGNAL) != (ssize_t)request_bytes) {
        cut += is_counting;
        begin_again(c);
    }
}

static void answered(struct connection *c, int64_t now) {
    int64_t took = now - c->since;
    if (is_counting) {
        if (c->status == 200 && took <= timeout_us) {
            if (good < good_room) good_us[good] = (uint32_t)took;
            good++;
        } else if (c->status == 200) timed_out++;
        else if (c->status == 503 || c->status == 429) refused++;
        else other++;
    }
    take_out(&waiting, c);
    c->phase = IDLE;
    append(&idle, c);
}

static void read_some(struct connection *c, int64_t now) {
    static char buffer[BUFFER + 1];
    ssize_t got = recv(c->fd, buffer, BUFFER, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        if (c->phase == WAITING) cut += is_counting;
        begin_again(c);
        return;
    }
    if (c->phase != WAITING) { begin_again(c); return; }  /* such as a 408 to an idle connection */
    buffer[got] = 0;
    if (c->missing < 0) {
        char *end = strstr(buffer, "\r\n\r\n"), *length = strcasestr(buffer, "\r\ncontent-length:");
        if (!end || !length || length > end) { other += is_counting; begin_again(c); return; }
        c->status = atoi(buffer + 9);
        c->missing = atol(length + 17) - (got - (end + 4 - buffer));
        char *closes = strcasestr(buffer, "\r\nconnection: close");
        if (closes && closes < end && c->missing <= 0) { answered(c, now); begin_again(c); return; }
    } else c->missing -= got;
    if (c->missing <= 0) answered(c, now);
}

static void give_up(int64_t now) {
    while (waiting.first && now - waiting.first->since > timeout_us) {
        struct connection *c = waiting.first;
        if (c->phase == WAITING) timed_out += is_counting; else not_connected += is_counting;
        begin_again(c);
    }
}

static void turn(int64_t now, int wait_ms) {
    static struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll_fd, events, EVENTS, wait_ms);
    now = now_us();
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (c->phase != CONNECTING) { read_some(c, now); continue; }
        if (events[i].events & (EPOLLERR | EPOLLHUP)) {
            not_connected += is_counting;
            usleep(100);
            begin_again(c);
            continue;
        }
        take_out(&waiting, c);
        c->phase = IDLE;
        append(&idle, c);
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
    }
    give_up(now);
}

static int by_size(const void *a, const void *b) {
    uint32_t one = *(const uint32_t *)a, two = *(const uint32_t *)b;
    return one < two ? -1 : one > two;
}

static uint32_t quantile(double share) {
    long known = good < good_room ? good : good_room;
    return known ? good_us[(long)(share * (known - 1))] : 0;
}

static void run(double rate, double seconds) {
    int64_t start = now_us(), end = start + (int64_t)(seconds * 1e6), now;
    double due = 0, done = 0;
    while ((now = now_us()) < end) {
        if (rate > 0) {
            due = (now - start) * rate / 1e6;
            if (due - done > BURST) { unsent += is_counting * (long)(due - done - BURST); done = due - BURST; }
            for (; done + 1 <= due; done++) {
                if (idle.first) send_one(idle.first, now); else unsent += is_counting;
            }
        } else while (idle.first) send_one(idle.first, now);
        turn(now, 1);
    }
}

int main(int argc, char **argv) {
    if (argc != 8) { fprintf(stderr, "open_load PORT HOST PATH CONNECTIONS RATE SECONDS TIMEOUT_MS\n"); return 2; }
    port = atoi(argv[1]);
    long count = atol(argv[4]);
    double rate = atof(argv[5]), seconds = atof(argv[6]);
    timeout_us = atol(argv[7]) * 1000;
    request_bytes = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", argv[3], argv[2]);
    struct rlimit files = {count + 64, count + 64}, old;
    getrlimit(RLIMIT_NOFILE, &old);
    if (old.rlim_cur < files.rlim_cur) { files.rlim_max = old.rlim_max; setrlimit(RLIMIT_NOFILE, &files); }
    epoll_fd = epoll_create1(0);
    good_room = (long)((rate > 0 ? rate : 200000) * seconds) + BURST;
    good_us = malloc(good_room * sizeof *good_us);
    struct connection *all = calloc(count, sizeof *all);
    if (!good_us || !all) return 1;
    for (long i = 0; i < count; i++) {
        begin(&all[i]);
        if (i % 64 == 63) turn(now_us(), 1);
    }
    /* Every proxy has accepted all of them before the first request: a herd of new connections is another load. */
    for (int64_t begun = now_us(); now_us() - begun < 2000000;) turn(now_us(), 10);
    run(rate, 2.0);  /* the state that is measured is the one that lasts */
    is_counting = 1;
    opened = 0;
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    double cpu = used.tv_sec + used.tv_nsec / 1e9;
    int64_t from = now_us();
    run(rate, seconds);
    double took = (now_us() - from) / 1e6;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    cpu = (used.tv_sec + used.tv_nsec / 1e9 - cpu) / took;
    qsort(good_us, good < good_room ? good : good_room, sizeof *good_us, by_size);
    printf("{\"seconds\": %.3f, \"sent\": %ld, \"good\": %ld, \"refused\": %ld, \"other\": %ld, \"timed_out\": %ld, "
           "\"cut\": %ld, \"unsent\": %ld, \"not_connected\": %ld, \"opened\": %ld, \"cpu\": %.2f, "
           "\"p50_us\": %u, \"p99_us\": %u}\n",
           took, sent, good, refused, other, timed_out, cut, unsent, not_connected, opened, cpu,
           quantile(0.5), quantile(0.99));
    return 0;
}
