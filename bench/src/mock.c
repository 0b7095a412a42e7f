// An OpenAI-compatible upstream that costs next to nothing: one thread, epoll, buffers that are kept.
//
//   POST …/chat/completions   a chat.completion of about 700 bytes with usage; or, with
//                             "stream": true, N content chunks, finish_reason, usage, [DONE]
//   GET  …/models             a list of one
//   GET  /_ctl?latency=MS&chunks=N&interval=MS    changes the knobs while it runs
//   GET  /_stats              counters
//
// mock [--port P] [--latency MS] [--chunks N] [--interval MS]
// Port 0 takes any free one; the port is printed on the first line of standard output.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum mode { IDLE, WAITING, STREAMING };

typedef struct conn {
    int fd, dead, closing, wants_out;
    char *in;
    size_t in_len, in_cap;
    char *out;
    size_t out_len, out_off, out_cap;
    enum mode mode;
    int pos, total;  // of the stream's content chunks
    double interval_ms;
    uint64_t id;
    int heap_at;  // -1: no timer
    uint64_t due_ns;
    struct conn *next_dead;
} conn;

static double latency_ms = 0, interval_ms = 0;
static int chunks = 64;
static uint64_t requests, streams, chunks_sent;
static int ep;
static conn *graveyard;  // freed after the turn, when no event can name them any more

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void *must(void *memory) {
    if (!memory) {
        perror("mock: memory");
        exit(1);
    }
    return memory;
}

// ---- timers: a binary heap of connections by due time

static conn **heap;
static int heap_len, heap_cap;

static void heap_set(int i, conn *c) {
    heap[i] = c;
    c->heap_at = i;
}

static void heap_up(int i) {
    conn *c = heap[i];
    while (i > 0) {
        int parent = (i - 1) / 2;
        if (heap[parent]->due_ns <= c->due_ns) break;
        heap_set(i, heap[parent]);
        i = parent;
    }
    heap_set(i, c);
}

static void heap_down(int i) {
    conn *c = heap[i];
    for (;;) {
        int child = 2 * i + 1;
        if (child >= heap_len) break;
        if (child + 1 < heap_len && heap[child + 1]->due_ns < heap[child]->due_ns) child++;
        if (heap[child]->due_ns >= c->due_ns) break;
        heap_set(i, heap[child]);
        i = child;
    }
    heap_set(i, c);
}

static void timer_add(conn *c, uint64_t due_ns) {
    if (heap_len == heap_cap) {
        heap_cap = heap_cap ? heap_cap * 2 : 1024;
        heap = must(realloc(heap, (size_t)heap_cap * sizeof *heap));
    }
    c->due_ns = due_ns;
    heap_set(heap_len, c);
    heap_len++;
    heap_up(heap_len - 1);
}

static void timer_remove(conn *c) {
    int i = c->heap_at;
    if (i < 0) return;
    c->heap_at = -1;
    heap_len--;
    if (i < heap_len) {
        conn *last = heap[heap_len];
        heap_set(i, last);
        heap_up(i);
        heap_down(last->heap_at);
    }
}

// ---- output

static char *reserve(conn *c, size_t n) {
    if (c->out_len + n > c->out_cap) {
        c->out_cap = (c->out_len + n) * 2;
        c->out = must(realloc(c->out, c->out_cap));
    }
    return c->out + c->out_len;
}

static void append(conn *c, const char *bytes, size_t n) {
    memcpy(reserve(c, n), bytes, n);
    c->out_len += n;
}

static void bury(conn *c) {
    if (c->dead) return;
    c->dead = 1;
    timer_remove(c);
    epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL);
    close(c->fd);
    c->next_dead = graveyard;
    graveyard = c;
}

static void watch_output(conn *c, int on) {
    struct epoll_event e = {.events = EPOLLIN | (on ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
    c->wants_out = on;
}

static void flush_out(conn *c) {
    while (c->out_off < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN)
                bury(c);
            else if (!c->wants_out)
                watch_output(c, 1);
            return;
        }
        c->out_off += (size_t)n;
    }
    c->out_off = c->out_len = 0;
    if (c->wants_out) watch_output(c, 0);
    if (c->closing && c->mode == IDLE) bury(c);
}

// ---- what is answered: templates, filled with an id of 24 digits

#define ID_DIGITS 24
#define ID_BLANK "000000000000000000000000"
#define PROVIDER_HEADERS \
    "openai-organization: bench\r\nopenai-processing-ms: 12\r\nopenai-version: 2020-10-01\r\n" \
    "x-ratelimit-limit-requests: 10000\r\nx-ratelimit-remaining-requests: 9999\r\n" \
    "x-ratelimit-limit-tokens: 2000000\r\nx-ratelimit-remaining-tokens: 1999900\r\n" \
    "x-request-id: req_" ID_BLANK "\r\n\r\n"
#define NO_TOKEN_DETAILS \
    "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0}," \
    "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0," \
    "\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}"
#define CHUNK_HEAD \
    "data: {\"id\":\"chatcmpl-%024llu\",\"object\":\"chat.completion.chunk\",\"created\":1763600000," \
    "\"model\":\"gpt-4o-mini-2024-07-18\",\"system_fingerprint\":\"fp_44added55e\",\"choices\":"

static char plain[4096], stream_head[1024], content[512];
static size_t plain_len, plain_request_id, plain_id;
static size_t stream_head_len, stream_request_id;
static size_t content_len, content_id, content_number;

static void put_number(char *at, int digits, uint64_t n) {
    for (int i = digits - 1; i >= 0; i--) {
        at[i] = (char)('0' + n % 10);
        n /= 10;
    }
}

static size_t after(const char *text, const char *mark) {
    return (size_t)(strstr(text, mark) - text) + strlen(mark);
}

static void build_plain(void) {
    char body[2048];
    int n = snprintf(body, sizeof body,
        "{\"id\":\"chatcmpl-" ID_BLANK "\",\"object\":\"chat.completion\",\"created\":1763600000,"
        "\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"message\":"
        "{\"role\":\"assistant\",\"content\":\"The quick brown fox jumps over the lazy dog, and the "
        "bench runs on.\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":23,\"completion_tokens\":16,"
        "\"total_tokens\":39," NO_TOKEN_DETAILS
        ",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_44added55e\"}");
    plain_len = (size_t)snprintf(plain, sizeof plain,
        "HTTP/1.1 200 OK\r\nDate: Thu, 20 Nov 2025 12:00:00 GMT\r\nContent-Type: application/json\r\n"
        "Content-Length: %d\r\n" PROVIDER_HEADERS "%s", n, body);
    plain_request_id = after(plain, "req_");
    plain_id = after(plain, "chatcmpl-");
}

static void build_stream(void) {
    stream_head_len = (size_t)snprintf(stream_head, sizeof stream_head,
        "HTTP/1.1 200 OK\r\nDate: Thu, 20 Nov 2025 12:00:00 GMT\r\n"
        "Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
        "Transfer-Encoding: chunked\r\n" PROVIDER_HEADERS);
    stream_request_id = after(stream_head, "req_");
    char event[400];
    int n = snprintf(event, sizeof event, CHUNK_HEAD
        "[{\"index\":0,\"delta\":{\"content\":\" tk00000\"},\"logprobs\":null,"
        "\"finish_reason\":null}]}\n\n", 0ull);
    content_len = (size_t)snprintf(content, sizeof content, "%x\r\n%s\r\n", n, event);
    content_id = after(content, "chatcmpl-");
    content_number = after(content, " tk");
}

static void send_plain(conn *c) {
    char *at = reserve(c, plain_len);
    memcpy(at, plain, plain_len);
    put_number(at + plain_request_id, ID_DIGITS, c->id);
    put_number(at + plain_id, ID_DIGITS, c->id);
    c->out_len += plain_len;
    c->mode = IDLE;
}

static void send_chunk(conn *c, const char *event, int n) {
    char size[16];
    append(c, size, (size_t)snprintf(size, sizeof size, "%x\r\n", n));
    append(c, event, (size_t)n);
    append(c, "\r\n", 2);
}

static void send_stream_head(conn *c) {
    char *at = reserve(c, stream_head_len);
    memcpy(at, stream_head, stream_head_len);
    put_number(at + stream_request_id, ID_DIGITS, c->id);
    c->out_len += stream_head_len;
    char event[500];
    int n = snprintf(event, sizeof event, CHUNK_HEAD
        "[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
        "\"logprobs\":null,\"finish_reason\":null}]}\n\n", (unsigned long long)c->id);
    send_chunk(c, event, n);
}

static void send_content(conn *c, int number) {
    char *at = reserve(c, content_len);
    memcpy(at, content, content_len);
    put_number(at + content_id, ID_DIGITS, c->id);
    put_number(at + content_number, 5, (uint64_t)number);
    c->out_len += content_len;
    chunks_sent++;
}

static void send_stream_tail(conn *c) {
    char event[900];
    int n = snprintf(event, sizeof event, CHUNK_HEAD
        "[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n",
        (unsigned long long)c->id);
    send_chunk(c, event, n);
    n = snprintf(event, sizeof event, CHUNK_HEAD
        "[],\"usage\":{\"prompt_tokens\":23,\"completion_tokens\":%d,\"total_tokens\":%d,"
        NO_TOKEN_DETAILS "}\n\n", (unsigned long long)c->id, c->total, c->total + 23);
    send_chunk(c, event, n);
    send_chunk(c, "data: [DONE]\n\n", 14);
    append(c, "0\r\n\r\n", 5);
}

// Sends what is due now, and sets the timer for the next chunk.
static void step_stream(conn *c) {
    if (c->pos == 0) send_stream_head(c);
    if (c->interval_ms <= 0) {
        while (c->pos < c->total) send_content(c, c->pos++);
    } else if (c->pos < c->total) {
        send_content(c, c->pos++);
    }
    if (c->pos >= c->total) {
        send_stream_tail(c);
        c->mode = IDLE;
    } else {
        timer_add(c, (c->due_ns ? c->due_ns : now_ns()) + (uint64_t)(c->interval_ms * 1e6));
    }
}

// ---- requests

static void answer_json(conn *c, const char *status, const char *body) {
    char head[256];
    int n = snprintf(head, sizeof head,
        "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", status,
        strlen(body));
    append(c, head, (size_t)n);
    append(c, body, strlen(body));
}

static double query_number(const char *query, const char *end, const char *name, double otherwise) {
    size_t n = strlen(name);
    for (const char *p = query; p + n < end; p++)
        if ((p[-1] == '?' || p[-1] == '&') && !memcmp(p, name, n) && p[n] == '=')
            return atof(p + n + 1);
    return otherwise;
}

static int is_stream(const char *body, size_t n) {
    const char *p = memmem(body, n, "\"stream\"", 8);
    if (!p) return 0;
    for (p += 8; *p == ' ' || *p == ':';) p++;
    return !strncmp(p, "true", 4);
}

static void begin_chat(conn *c, int stream) {
    requests++;
    c->id = requests;
    c->due_ns = 0;
    if (stream) {
        streams++;
        c->mode = STREAMING;
        c->pos = 0;
        c->total = chunks;
        c->interval_ms = interval_ms;
    } else {
        c->mode = WAITING;
    }
    if (latency_ms > 0)
        timer_add(c, now_ns() + (uint64_t)(latency_ms * 1e6));
    else if (stream)
        step_stream(c);
    else
        send_plain(c);
}

static void answer_control(conn *c, const char *line, const char *end) {
    char body[200];
    latency_ms = query_number(line + 5, end, "latency", latency_ms);
    interval_ms = query_number(line + 5, end, "interval", interval_ms);
    chunks = (int)query_number(line + 5, end, "chunks", chunks);
    snprintf(body, sizeof body, "{\"latency\":%g,\"chunks\":%d,\"interval\":%g}\n", latency_ms,
        chunks, interval_ms);
    answer_json(c, "200 OK", body);
}

static void answer_stats(conn *c) {
    char body[200];
    snprintf(body, sizeof body, "{\"requests\":%llu,\"streams\":%llu,\"chunks\":%llu}\n",
        (unsigned long long)requests, (unsigned long long)streams, (unsigned long long)chunks_sent);
    answer_json(c, "200 OK", body);
}

// The length of the request at the start of the input, 0 while it is incomplete.
static size_t request_length(conn *c, size_t *head_len) {
    char *head_end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!head_end) return 0;
    *head_len = (size_t)(head_end - c->in) + 4;
    size_t length = 0;
    int chunked = 0;
    for (char *p = (char *)memchr(c->in, '\n', *head_len) + 1; p < head_end;) {
        char *e = memmem(p, (size_t)(head_end + 2 - p), "\r\n", 2);
        if (!e) e = head_end;
        size_t n = (size_t)(e - p);
        if (n > 15 && !strncasecmp(p, "content-length:", 15)) length = strtoul(p + 15, NULL, 10);
        else if (n > 18 && !strncasecmp(p, "transfer-encoding:", 18)) chunked = 1;
        else if (n >= 17 && !strncasecmp(p, "connection: close", 17)) c->closing = 1;
        p = e + 2;
    }
    if (!chunked) return c->in_len < *head_len + length ? 0 : *head_len + length;
    for (size_t at = *head_len;;) {
        char *e = memmem(c->in + at, c->in_len - at, "\r\n", 2);
        if (!e) return 0;
        size_t size = strtoul(c->in + at, NULL, 16), data = (size_t)(e - c->in) + 2;
        if (data + size + 2 > c->in_len) return 0;
        if (size == 0) return data + 2;
        at = data + size + 2;
    }
}

static void read_requests(conn *c) {
    while (!c->dead && c->mode == IDLE && c->in_len) {
        size_t head_len = 0, length = request_length(c, &head_len);
        if (!length) return;
        char *line_end = memchr(c->in, '\n', head_len);
        size_t line_len = (size_t)(line_end - c->in);
        if (!memcmp(c->in, "POST ", 5) && memmem(c->in, line_len, "/chat/completions", 17))
            begin_chat(c, is_stream(c->in + head_len, length - head_len));
        else if (!memcmp(c->in, "GET /_ctl", 9))
            answer_control(c, c->in, line_end);
        else if (!memcmp(c->in, "GET /_stats", 11))
            answer_stats(c);
        else if (memmem(c->in, line_len, "/models", 7))
            answer_json(c, "200 OK",
                "{\"object\":\"list\",\"data\":[{\"id\":\"gpt-4o-mini\",\"object\":\"model\","
                "\"created\":1763600000,\"owned_by\":\"bench\"}]}");
        else
            answer_json(c, "404 Not Found",
                "{\"error\":{\"message\":\"not found\",\"type\":\"invalid_request_error\"}}");
        memmove(c->in, c->in + length, c->in_len - length);
        c->in_len -= length;
        flush_out(c);
    }
}

static void fire(conn *c) {
    if (c->mode == WAITING) send_plain(c);
    else if (c->mode == STREAMING) step_stream(c);
    flush_out(c);
    read_requests(c);
}

// ---- the loop

static void receive(conn *c) {
    for (;;) {
        if (c->in_len == c->in_cap) {
            c->in_cap *= 2;
            c->in = must(realloc(c->in, c->in_cap + 1));
        }
        size_t room = c->in_cap - c->in_len;
        ssize_t n = recv(c->fd, c->in + c->in_len, room, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            bury(c);
            return;
        }
        if (n < 0) break;
        c->in_len += (size_t)n;
        c->in[c->in_len] = 0;  // is_stream and strtoul stop here
        if ((size_t)n < room) break;
    }
    read_requests(c);
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), one = 1;
        if (fd < 0) return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conn *c = must(calloc(1, sizeof *c));
        c->fd = fd;
        c->heap_at = -1;
        c->in_cap = 8192;
        c->in = must(malloc(c->in_cap + 1));
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    }
}

static void turn(int listener) {
    struct epoll_event events[512];
    struct timespec wait, *limit = NULL;
    if (heap_len) {
        uint64_t now = now_ns(), left = heap[0]->due_ns > now ? heap[0]->due_ns - now : 0;
        wait.tv_sec = (time_t)(left / 1000000000ull);
        wait.tv_nsec = (long)(left % 1000000000ull);
        limit = &wait;
    }
    int n = epoll_pwait2(ep, events, 512, limit, NULL);
    for (int i = 0; i < n; i++) {
        conn *c = events[i].data.ptr;
        if (!c) {
            accept_all(listener);
            continue;
        }
        if (!c->dead && events[i].events & EPOLLOUT) flush_out(c);
        if (!c->dead && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
    }
    for (uint64_t now = now_ns(); heap_len && heap[0]->due_ns <= now;) {
        conn *c = heap[0];
        timer_remove(c);
        fire(c);
    }
    while (graveyard) {
        conn *c = graveyard;
        graveyard = c->next_dead;
        free(c->in);
        free(c->out);
        free(c);
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    if (bind(fd, (void *)&at, sizeof at) || listen(fd, 4096) || getsockname(fd, (void *)&at, &n)) {
        perror("mock: listen");
        exit(1);
    }
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv) {
    int port = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--port")) port = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--latency")) latency_ms = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--chunks")) chunks = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--interval")) interval_ms = atof(argv[i + 1]);
        else { fprintf(stderr, "mock: what is %s?\n", argv[i]); return 2; }
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    build_plain();
    build_stream();
    int listener = listen_on(port);
    ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    for (;;) turn(listener);
}
