/* The clients of the benchmarks: thousands of WebSockets in one thread, which count what they get.
 *
 *   load connect PORT HANDSHAKES READY PING PONG    clients of the server on 127.0.0.1:PORT
 *   load serve PORT                                 the least that a server can do
 *
 * HANDSHAKES is a file with a record for each connection, ended by NUL: an upgrade request, and
 * after each \1 a text message to send once the server has switched protocols. A connection is
 * ready when it has got READY, or at the switch when READY is empty. A text message that equals
 * PING is answered by PONG.
 *
 * A delivery is a `~` in what comes in, followed by 19 digits: when it was sent, in nanoseconds of
 * CLOCK_MONOTONIC. A compressed message is one too, whose time is not read.
 *
 * Commands come as lines, and each is answered by a line of JSON:
 *
 *   open N MOST SECONDS   connect the next N, at most MOST of them at a time
 *   until N SECONDS       wait for N deliveries since the last reset
 *   reset                 count from nought
 *   stall I               read no longer from connection I
 *   end                   close all, and exit
 *
 * A thread that sleeps is woken by the system call of whoever writes to it: on loopback the server
 * would pay for that, more or less of it the slower it is, and over a network it never does. So
 * nothing sleeps while a command is under way; `worked` is the time in which there was work.
 *
 * `serve` upgrades whoever asks, and writes the body of a POST to all of them, one system call for
 * each: the floor of any server's cost, and the proof of what the clients can take.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
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

enum { CHUNK = 1 << 18, SOURCES = 8, EVENTS = 1024, STAMP = 19, MOST_SAMPLES = 1 << 24 };
enum state { UNUSED, CONNECTING, UPGRADING, GREETING, READY, GONE };

struct connection {
    int fd;
    enum state state;
    char *request;
    char *partial; /* the beginning of a frame whose end has not come yet */
    size_t held;
};

static struct connection *connections;
static size_t known, opened, in_progress, ready, gone;
static uint64_t deliveries;
static uint32_t *samples; /* latencies in microseconds */
static size_t sampled;
static uint64_t began, worked;
static int epoll;
static uint16_t port;
static const char *ready_mark, *ping, *pong;
static char buffer[CHUNK + 1];

/* The command under way. */
static enum { NOTHING, OPENING, WAITING } command;
static size_t target, most_at_once;
static uint64_t deadline, command_began;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void *enlarged(void *memory, size_t size)
{
    memory = realloc(memory, size);
    if (!memory)
        fail("memory");
    return memory;
}

static void watch(int fd, uint64_t tag, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.u64 = tag};
    if (epoll_ctl(epoll, operation, fd, &event))
        fail("epoll_ctl");
}

static void lose(struct connection *c)
{
    if (c->state < READY && c->state > UNUSED)
        in_progress--;
    if (c->state == READY)
        ready--;
    close(c->fd);
    free(c->partial);
    c->partial = NULL;
    c->held = 0;
    c->state = GONE;
    gone++;
}

static void send_all(struct connection *c, const char *data, size_t length)
{
    /* What a client says is short: it always fits into the socket's empty buffer. */
    if (send(c->fd, data, length, MSG_NOSIGNAL) != (ssize_t)length)
        lose(c);
}

static void send_frame(struct connection *c, int opcode, const char *payload, size_t length)
{
    unsigned char frame[8 + 65536] = {0x80 | opcode};
    size_t at = 2;
    if (length > 65535)
        return;
    if (length < 126) {
        frame[1] = 0x80 | length;
    } else {
        frame[1] = 0x80 | 126;
        frame[2] = length >> 8;
        frame[3] = length & 255;
        at = 4;
    }
    memset(frame + at, 0, 4); /* a mask of noughts changes nothing */
    memcpy(frame + at + 4, payload, length);
    send_all(c, (char *)frame, at + 4 + length);
}

static void greeted(struct connection *c)
{
    c->state = READY;
    in_progress--;
    ready++;
}

static void count(const char *text, size_t length, uint64_t at)
{
    const char *end = text + length;
    while ((text = memchr(text, '~', end - text)) && end - ++text >= STAMP) {
        uint64_t sent = 0;
        for (int i = 0; i < STAMP; i++)
            sent = sent * 10 + (text[i] - '0');
        deliveries++;
        if (sampled < MOST_SAMPLES)
            samples[sampled++] = at > sent ? (at - sent) / 1000 : 0;
    }
}

static void take(struct connection *c, int first, const char *payload, size_t length, uint64_t at)
{
    int opcode = first & 15, compressed = first & 64;
    if (opcode == 9)
        send_frame(c, 10, payload, length);
    else if (opcode == 8)
        lose(c);
    else if (compressed)
        deliveries++; /* nothing else is large enough; its time is not read */
    else if (length == strlen(ping) && length && !memcmp(payload, ping, length))
        send_frame(c, 1, pong, strlen(pong));
    else if (c->state == READY)
        count(payload, length, at);
    else if (memmem(payload, length, ready_mark, strlen(ready_mark)))
        greeted(c);
}

/* Take the whole frames at `data`; return how many bytes they had. */
static size_t take_frames(struct connection *c, const char *data, size_t length, uint64_t at)
{
    const unsigned char *bytes = (const unsigned char *)data;
    size_t used = 0;
    while (c->state != GONE && length - used >= 2) {
        size_t head = 2, size = bytes[used + 1] & 127;
        int wide = size == 126 ? 2 : size == 127 ? 8 : 0;
        if (length - used < head + wide)
            break;
        if (wide)
            size = 0;
        for (int i = 0; i < wide; i++)
            size = size << 8 | bytes[used + 2 + i];
        head += wide;
        if (length - used < head + size)
            break;
        take(c, bytes[used], data + used + head, size, at);
        used += head + size;
    }
    return used;
}

static size_t upgraded(struct connection *c, const char *data, size_t length)
{
    const char *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (memcmp(data, "HTTP/1.1 101", 12)) {
        static int told;
        if (!told++)
            fprintf(stderr, "refused: %.200s\n", data);
        lose(c);
        return length;
    }
    c->state = GREETING;
    for (char *more = strchr(c->request, 1); more && c->state != GONE;) {
        char *message = more + 1;
        more = strchr(message, 1);
        send_frame(c, 1, message, more ? (size_t)(more - message) : strlen(message));
    }
    if (c->state != GONE && !*ready_mark)
        greeted(c);
    return end + 4 - data;
}

static void feed(struct connection *c, char *data, size_t length, uint64_t at)
{
    if (c->held) {
        c->partial = enlarged(c->partial, c->held + length + 1);
        memcpy(c->partial + c->held, data, length);
        length += c->held;
        data = c->partial;
    }
    size_t used = c->state == UPGRADING ? upgraded(c, data, length) : 0;
    if (c->state > UPGRADING && c->state != GONE)
        used += take_frames(c, data + used, length - used, at);
    if (c->state == GONE)
        return;
    c->held = length - used;
    if (!c->held)
        return;
    if (data == c->partial) {
        memmove(c->partial, data + used, c->held);
    } else {
        c->partial = enlarged(NULL, c->held + 1);
        memcpy(c->partial, data + used, c->held);
    }
}

static void readable(struct connection *c, uint64_t at)
{
    ssize_t got = recv(c->fd, buffer, CHUNK, 0);
    if (got > 0) {
        buffer[got] = 0;
        char *held = c->held ? c->partial : NULL;
        feed(c, buffer, got, at);
        if (held && c->state != GONE && !c->held) {
            free(c->partial);
            c->partial = NULL;
        }
    } else if (!got || errno != EAGAIN) {
        lose(c);
    }
}

static void begin(struct connection *c)
{
    size_t index = c - connections;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = from;
    int yes = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        fail("socket");
    /* One address has 28,000 ports at most: several addresses, so that they never run out. */
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + index % SOURCES);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(port);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from))
        fail("bind");
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        fail("connect");
    c->state = CONNECTING;
    in_progress++;
    watch(c->fd, index, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

static void connected(struct connection *c)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        lose(c);
        return;
    }
    char *more = strchr(c->request, 1);
    c->state = UPGRADING;
    watch(c->fd, c - connections, EPOLLIN, EPOLL_CTL_MOD);
    send_all(c, c->request, more ? (size_t)(more - c->request) : strlen(c->request));
}

static int by_size(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static uint32_t quantile(double share)
{
    return sampled ? samples[(size_t)(share * (double)(sampled - 1))] : 0;
}

static void report(void)
{
    uint64_t at = now();
    qsort(samples, sampled, sizeof *samples, by_size);
    printf("{\"ready\":%zu,\"gone\":%zu,\"deliveries\":%llu,\"seconds\":%.6f,\"worked\":%.6f,"
           "\"command\":%.6f,\"p50\":%u,\"p99\":%u,\"max\":%u}\n",
           ready, gone, (unsigned long long)deliveries, (double)(at - began) / 1e9, (double)worked / 1e9,
           (double)(at - command_began) / 1e9, quantile(0.5), quantile(0.99), quantile(1));
    command = NOTHING;
}

static void reset(void)
{
    deliveries = sampled = worked = 0;
    began = now();
}

static void obey(const char *line)
{
    unsigned long n, most;
    double seconds;
    command_began = now();
    if (sscanf(line, "open %lu %lu %lf", &n, &most, &seconds) == 3) {
        command = OPENING;
        target = opened + n < known ? opened + n : known;
        most_at_once = most;
        deadline = command_began + (uint64_t)(seconds * 1e9);
    } else if (sscanf(line, "until %lu %lf", &n, &seconds) == 2) {
        command = WAITING;
        target = n;
        deadline = command_began + (uint64_t)(seconds * 1e9);
    } else if (sscanf(line, "stall %lu", &n) == 1 && n < opened) {
        if (connections[n].state != GONE)
            watch(connections[n].fd, n, 0, EPOLL_CTL_DEL);
        report();
    } else if (!strncmp(line, "reset", 5)) {
        reset();
        report();
    } else if (!strncmp(line, "end", 3)) {
        exit(0);
    } else {
        fprintf(stderr, "unknown command: %s", line);
        exit(1);
    }
}

static void proceed(void)
{
    while (command == OPENING && opened < target && in_progress < most_at_once)
        begin(&connections[opened++]);
    int done = command == OPENING ? opened == target && !in_progress : deliveries >= target;
    if (command != NOTHING && (done || now() > deadline))
        report();
}

static void load_handshakes(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        fail(path);
    char *record = NULL;
    size_t size = 0;
    while (getdelim(&record, &size, 0, file) > 0) {
        connections = enlarged(connections, (known + 1) * sizeof *connections);
        connections[known++] = (struct connection){.request = record};
        record = NULL;
        size = 0;
    }
    fclose(file);
}

static void clients(void)
{
    struct epoll_event events[EVENTS];
    char line[256];
    uint64_t input = UINT64_MAX;
    samples = enlarged(NULL, MOST_SAMPLES * sizeof *samples);
    setvbuf(stdout, NULL, _IOLBF, 0);
    watch(STDIN_FILENO, input, EPOLLIN, EPOLL_CTL_ADD);
    reset();
    for (;;) {
        int patience = command == NOTHING ? -1 : 0;
        int count = epoll_wait(epoll, events, EVENTS, patience);
        uint64_t at = now();
        for (int i = 0; i < count; i++) {
            if (events[i].data.u64 == input) {
                ssize_t got = read(STDIN_FILENO, line, sizeof line - 1);
                if (got <= 0)
                    exit(0); /* whoever commanded is gone */
                line[got] = 0;
                obey(line);
                continue;
            }
            struct connection *c = &connections[events[i].data.u64];
            if (c->state == CONNECTING && events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
                connected(c);
            else if (c->state != GONE && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
                readable(c, at);
        }
        if (count)
            worked += now() - at;
        proceed();
    }
}

/* The least that a server can do. */

static int *subscribers;
static size_t subscribed;

static void broadcast(const char *body, size_t length)
{
    unsigned char frame[4 + 65536] = {0x81, 126, length >> 8, length & 255};
    memcpy(frame + 4, body, length);
    for (size_t i = 0; i < subscribed; i++)
        if (subscribers[i] >= 0 && send(subscribers[i], frame, length + 4, MSG_NOSIGNAL) < 0)
            subscribers[i] = -1;
}

static void serve_request(int fd)
{
    static const char switching[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                    "Connection: Upgrade\r\n\r\n";
    static const char done[] = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
    ssize_t got = recv(fd, buffer, CHUNK, 0);
    if (got <= 0) {
        close(fd);
        return;
    }
    buffer[got] = 0;
    char *body = strstr(buffer, "\r\n\r\n");
    if (!strncmp(buffer, "GET", 3)) {
        subscribers = enlarged(subscribers, (subscribed + 1) * sizeof *subscribers);
        subscribers[subscribed++] = fd;
        send(fd, switching, sizeof switching - 1, MSG_NOSIGNAL);
    } else if (body && buffer + got - body - 4 <= 65535) {
        broadcast(body + 4, buffer + got - body - 4);
        send(fd, done, sizeof done - 1, MSG_NOSIGNAL);
    }
}

static void serve(void)
{
    struct epoll_event events[EVENTS];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listening = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listening, (struct sockaddr *)&at, sizeof at) || listen(listening, 4096))
        fail("listen");
    watch(listening, listening, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = (int)events[i].data.u64;
            if (fd != listening) {
                serve_request(fd);
            } else if ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                watch(fd, fd, EPOLLIN, EPOLL_CTL_ADD);
            }
        }
    }
}

int main(int count, char **words)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    epoll = epoll_create1(0);
    if (count == 3 && !strcmp(words[1], "serve")) {
        port = atoi(words[2]);
        serve();
    }
    if (count != 7 || strcmp(words[1], "connect")) {
        fprintf(stderr, "load connect PORT HANDSHAKES READY PING PONG | load serve PORT\n");
        return 2;
    }
    port = atoi(words[2]);
    load_handshakes(words[3]);
    ready_mark = words[4];
    ping = words[5];
    pong = words[6];
    clients();
}
