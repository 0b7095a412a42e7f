// Load generator and checker of answers: one thread, epoll, HTTP/1.1 kept alive.
//
// loadgen --port P [--path /v1/chat/completions] [-c CONNECTIONS] [-n REQUESTS] [--rate PER_SECOND]
//         [--stream --chunks N] [--model NAME] [--header "K: V"]... [--body FILE] [--timeout S]
//
// Prints one JSON object; latencies are in microseconds. With --rate, latency counts from the
// scheduled start, so a server that falls behind cannot hide it. A stream is good only with all its
// chunks in order, a finish_reason and [DONE] last; a plain answer only with its text and usage.
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

#define DEFAULT_BODY_HEAD \
    "{\"model\":\"%s\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"}," \
    "{\"role\":\"user\",\"content\":\"Write a short poem about the sea, in the style of a tired " \
    "lighthouse keeper who has read too much.\"}],\"temperature\":0.7,\"max_tokens\":256%s}"
#define STREAM_FIELDS ",\"stream\":true,\"stream_options\":{\"include_usage\":true}"

typedef struct {
    uint32_t *values;
    size_t len, cap;
} samples;

enum decoder { SIZE_LINE, DATA, DATA_END, TRAILER };

typedef struct {
    int fd, busy, connecting;
    size_t sent;
    uint64_t begun_ns;
    int in_head, status, chunked;
    long long length_left;  // -1: until the connection closes
    char head[16384];
    size_t head_len;
    enum decoder decoder;
    long long chunk_left;
    char size_line[32];
    size_t size_line_len;
    char line[65536];  // the SSE line, or the whole plain body
    size_t line_len;
    int next_chunk, bad, done, usage, finished, good_text;
    uint64_t first_ns, last_ns;
    size_t body_len;
} conn;

static int ep, port, connections = 1, chunks_expected = 64, stream;
static long total = 1000;
static double rate, idle_limit_s = 120;
static char request[262144];
static size_t request_len;
static struct sockaddr_in address;

static conn *conns;
static int *free_list, free_count, active, peak_active;
static long started, finished, http_errors, bad_answers, opened, late;
static long chunk_count, event_count, usage_count;
static size_t bytes_in;
static samples latency, first_chunk, gap;
static uint64_t start_ns, end_ns;
static char first_error[256];

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

// ---- samples

static void add_sample(samples *s, uint64_t us) {
    if (s->len == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 65536;
        s->values = realloc(s->values, s->cap * sizeof *s->values);
        if (!s->values) exit(1);
    }
    s->values[s->len++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static int by_value(const void *x, const void *y) {
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return a < b ? -1 : a > b;
}

static void sort_samples(samples *s) {
    if (s->len) qsort(s->values, s->len, sizeof *s->values, by_value);
}

static double quantile(const samples *s, double q) {
    return s->len ? s->values[(size_t)(q * (double)(s->len - 1) + 0.5)] : 0;
}

// ---- connections

static void watch(conn *c, int op, int output) {
    struct epoll_event e = {.events = EPOLLIN | (output ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, op, c->fd, &e);
}

static void open_conn(conn *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) {
        perror("loadgen: socket");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    opened++;
    c->connecting = 1;
    // A refusal, now or later, arrives as an event on the socket.
    (void)connect(c->fd, (void *)&address, sizeof address);
    watch(c, EPOLL_CTL_ADD, 1);
}

static void shut_conn(conn *c) {
    if (c->fd < 0) return;
    epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL);
    close(c->fd);
    c->fd = -1;
}

static void send_request(conn *c) {
    while (c->sent < request_len) {
        ssize_t n = send(c->fd, request + c->sent, request_len - c->sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) watch(c, EPOLL_CTL_MOD, 1);
            return;  // a broken connection is seen by the next receive
        }
        c->sent += (size_t)n;
    }
}

static void begin(conn *c, uint64_t begun_ns) {
    c->busy = c->in_head = 1;
    c->begun_ns = begun_ns;
    c->sent = c->head_len = c->size_line_len = c->line_len = c->body_len = 0;
    c->status = c->chunked = 0;
    c->length_left = -1;
    c->decoder = SIZE_LINE;
    c->next_chunk = c->bad = c->done = c->usage = c->finished = c->good_text = 0;
    c->first_ns = c->last_ns = 0;
    started++;
    if (++active > peak_active) peak_active = active;
    if (c->fd < 0) open_conn(c);
    else send_request(c);
}

static int is_good(const conn *c) {
    if (!stream) return c->good_text;
    return c->next_chunk == chunks_expected && !c->bad && c->done && c->finished;
}

static void note_error(const conn *c, const char *what) {
    if (first_error[0]) return;
    snprintf(first_error, sizeof first_error, "%s: status=%d chunks=%d bad=%d done=%d finish=%d %.120s",
        what, c->status, c->next_chunk, c->bad, c->done, c->finished, c->line_len ? c->line : "");
    for (char *p = first_error; *p; p++)
        if (*p == '"' || *p == '\\' || (unsigned char)*p < 32) *p = '\'';
}

static void end(conn *c, int complete) {
    uint64_t now = now_ns();
    active--;
    finished++;
    c->busy = 0;
    end_ns = now;
    free_list[free_count++] = (int)(c - conns);
    if (!complete || c->status != 200) {
        http_errors++;
        note_error(c, complete ? "status" : "connection lost");
    } else if (!is_good(c)) {
        bad_answers++;
        note_error(c, "bad answer");
    } else {
        add_sample(&latency, (now - c->begun_ns) / 1000);
    }
    usage_count += c->usage;
}

// ---- answers

static int holds(const conn *c, const char *text) {
    return memmem(c->line, c->line_len, text, strlen(text)) != NULL;
}

static void read_event(conn *c, uint64_t now) {
    if (c->line_len < 5 || memcmp(c->line, "data:", 5)) return;
    event_count++;
    if (holds(c, "[DONE]")) {
        c->done = 1;
        return;
    }
    const char *text = memmem(c->line, c->line_len, " tk", 3);
    if (text) {
        if (c->done || atoi(text + 3) != c->next_chunk) c->bad = 1;
        c->next_chunk++;
        chunk_count++;
        if (c->first_ns) add_sample(&gap, (now - c->last_ns) / 1000);
        else add_sample(&first_chunk, ((c->first_ns = now) - c->begun_ns) / 1000);
        c->last_ns = now;
    } else if (holds(c, "\"stop\"")) {
        c->finished = 1;
    }
    if (holds(c, "\"total_tokens\"")) c->usage = 1;
}

static void keep(conn *c, const char *bytes, size_t n) {
    size_t room = sizeof c->line - 1 - c->line_len;
    if (n > room) n = room;
    memcpy(c->line + c->line_len, bytes, n);
    c->line_len += n;
    c->line[c->line_len] = 0;
}

static void read_body(conn *c, const char *bytes, size_t n, uint64_t now) {
    c->body_len += n;
    if (!stream || c->status != 200) {
        keep(c, bytes, n);
        return;
    }
    for (const char *p = bytes, *last = bytes + n; p < last;) {
        const char *newline = memchr(p, '\n', (size_t)(last - p));
        keep(c, p, (size_t)((newline ? newline : last) - p));
        if (!newline) return;
        read_event(c, now);
        c->line_len = 0;
        p = newline + 1;
    }
}

static int body_ended(conn *c) {
    if (!stream) c->good_text = holds(c, "quick brown fox") && holds(c, "total_tokens");
    return 1;
}

// Takes what belongs to the head; returns how many bytes that was.
static size_t read_head(conn *c, const char *bytes, size_t n) {
    size_t before = c->head_len, room = sizeof c->head - 1 - before;
    if (n > room) n = room;
    memcpy(c->head + before, bytes, n);
    c->head_len += n;
    c->head[c->head_len] = 0;
    size_t from = before > 3 ? before - 3 : 0;
    char *end_of_head = memmem(c->head + from, c->head_len - from, "\r\n\r\n", 4);
    if (!end_of_head) return n;
    *end_of_head = 0;
    c->in_head = 0;
    c->status = atoi(c->head + 9);
    const char *length = strcasestr(c->head, "\r\ncontent-length:");
    if (length) c->length_left = atoll(length + 17);
    c->chunked = strcasestr(c->head, "\r\ntransfer-encoding:") != NULL;
    return (size_t)(end_of_head - c->head) + 4 - before;
}

// One step of the chunked coding; returns how many bytes it took, sets *complete at the end.
static size_t read_chunked(conn *c, const char *p, size_t n, uint64_t now, int *complete) {
    if (c->decoder == DATA) {
        size_t k = (long long)n > c->chunk_left ? (size_t)c->chunk_left : n;
        read_body(c, p, k, now);
        c->chunk_left -= (long long)k;
        if (!c->chunk_left) c->decoder = DATA_END;
        return k;
    }
    if (c->decoder == SIZE_LINE) {
        if (*p == '\n') {
            c->size_line[c->size_line_len] = 0;
            c->chunk_left = strtoll(c->size_line, NULL, 16);
            c->size_line_len = 0;
            c->decoder = c->chunk_left ? DATA : TRAILER;
        } else if (c->size_line_len < sizeof c->size_line - 1) {
            c->size_line[c->size_line_len++] = *p;
        }
    } else if (c->decoder == DATA_END) {
        if (*p == '\n') c->decoder = SIZE_LINE;
    } else if (*p == '\n') {
        if (c->size_line_len == 0) *complete = body_ended(c);
        c->size_line_len = 0;
    } else if (*p != '\r') {
        c->size_line_len++;
    }
    return 1;
}

// True when the answer is complete.
static int read_answer(conn *c, const char *p, size_t n, uint64_t now) {
    while (n) {
        size_t used;
        int complete = 0;
        if (c->in_head) {
            used = read_head(c, p, n);
            if (!used) return 0;  // a head beyond all measure: the idle limit ends it
            if (!c->in_head && !c->chunked && c->length_left == 0) return body_ended(c);
        } else if (c->chunked) {
            used = read_chunked(c, p, n, now, &complete);
        } else {
            used = c->length_left >= 0 && (long long)n > c->length_left ? (size_t)c->length_left : n;
            read_body(c, p, used, now);
            if (c->length_left >= 0 && !(c->length_left -= (long long)used)) return body_ended(c);
        }
        if (complete) return 1;
        p += used;
        n -= used;
    }
    return 0;
}

static void lose(conn *c, int closed_in_order) {
    shut_conn(c);
    if (!c->busy) return;
    int until_close = closed_in_order && !c->in_head && !c->chunked && c->length_left < 0;
    if (until_close && c->body_len) {
        body_ended(c);
        end(c, 1);
    } else {
        end(c, 0);
    }
}

static void receive(conn *c) {
    static char buffer[262144];
    while (c->fd >= 0) {
        ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
        if (n < 0) {
            if (errno != EAGAIN) lose(c, 0);
            return;
        }
        if (n == 0) {
            lose(c, 1);
            return;
        }
        bytes_in += (size_t)n;
        if (c->busy && read_answer(c, buffer, (size_t)n, now_ns())) {
            if (strcasestr(c->head, "\r\nconnection: close")) shut_conn(c);
            end(c, 1);
        }
        if ((size_t)n < sizeof buffer) return;
    }
}

static void writable(conn *c) {
    if (c->connecting) {
        int error = 0;
        socklen_t n = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n);
        c->connecting = 0;
        if (error) {
            lose(c, 0);
            return;
        }
    }
    watch(c, EPOLL_CTL_MOD, 0);
    if (c->busy) send_request(c);
}

// ---- the loop

static uint64_t due_ns(long number) { return start_ns + (uint64_t)((double)number * 1e9 / rate); }

static void begin_due(void) {
    while (started < total) {
        uint64_t due = rate > 0 ? due_ns(started) : now_ns();
        if (due > now_ns()) return;
        if (!free_count) {
            if (rate > 0) late++;
            return;
        }
        begin(&conns[free_list[--free_count]], due);
    }
}

static struct timespec until_next(void) {
    struct timespec wait = {1, 0};
    if (rate > 0 && started < total && free_count) {
        uint64_t due = due_ns(started), now = now_ns(), left = due > now ? due - now : 0;
        if (left < 1000000000ull) wait = (struct timespec){0, (long)left};
    }
    return wait;
}

// True when nothing came for longer than the limit.
static int run(void) {
    struct epoll_event events[512];
    uint64_t progress = start_ns;
    while (finished < total) {
        begin_due();
        struct timespec wait = until_next();
        int n = epoll_pwait2(ep, events, 512, &wait, NULL);
        uint64_t now = now_ns();
        if (n > 0) progress = now;
        if ((double)(now - progress) / 1e9 > idle_limit_s) return 1;
        for (int i = 0; i < n; i++) {
            conn *c = events[i].data.ptr;
            if (c->fd >= 0 && events[i].events & EPOLLOUT) writable(c);
            if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
        }
    }
    return 0;
}

static void print_results(int timed_out) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu_s = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                   (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    double wall_s = finished ? (double)(end_ns - start_ns) / 1e9 : 0;
    sort_samples(&latency);
    sort_samples(&first_chunk);
    sort_samples(&gap);
    printf("{\"ok\":%zu,\"http_errors\":%ld,\"bad\":%ld,\"timed_out\":%s,\"wall_s\":%.4f,"
        "\"rps\":%.1f,\"p50\":%.0f,\"p90\":%.0f,\"p99\":%.0f,\"max\":%.0f,",
        latency.len, http_errors, bad_answers, timed_out ? "true" : "false", wall_s,
        wall_s > 0 ? (double)latency.len / wall_s : 0, quantile(&latency, .5),
        quantile(&latency, .9), quantile(&latency, .99), quantile(&latency, 1));
    printf("\"connections\":%ld,\"peak_active\":%d,\"late\":%ld,\"bytes\":%zu,\"client_cpu_s\":%.3f,"
        "\"chunks\":%ld,\"events\":%ld,\"usage_seen\":%ld,",
        opened, peak_active, late, bytes_in, cpu_s, chunk_count, event_count, usage_count);
    printf("\"ttft_p50\":%.0f,\"ttft_p99\":%.0f,\"gap_p50\":%.0f,\"gap_p99\":%.0f,\"gap_max\":%.0f,"
        "\"first_error\":\"%s\"}\n",
        quantile(&first_chunk, .5), quantile(&first_chunk, .99), quantile(&gap, .5),
        quantile(&gap, .99), quantile(&gap, 1), first_error);
}

// ---- options

static size_t read_file(const char *path, char *into, size_t cap) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(2);
    }
    size_t n = fread(into, 1, cap, file);
    fclose(file);
    return n;
}

static void build_request(const char *path, const char *headers, const char *model, const char *file) {
    static char body[131072];
    size_t n = file ? read_file(file, body, sizeof body)
                    : (size_t)snprintf(body, sizeof body, DEFAULT_BODY_HEAD, model,
                          stream ? STREAM_FIELDS : "");
    request_len = (size_t)snprintf(request, sizeof request,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: bench/1\r\nAccept: */*\r\n"
        "Content-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n", path, port, headers, n);
    memcpy(request + request_len, body, n);
    request_len += n;
}

static void read_options(int argc, char **argv) {
    static char headers[8192];
    const char *path = "/v1/chat/completions", *model = "gpt-4o-mini", *file = NULL;
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(name, "--stream")) {
            stream = 1;
            continue;
        }
        if (!value) name = "";
        i++;
        if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--path")) path = value;
        else if (!strcmp(name, "-c")) connections = atoi(value);
        else if (!strcmp(name, "-n")) total = atol(value);
        else if (!strcmp(name, "--rate")) rate = atof(value);
        else if (!strcmp(name, "--chunks")) chunks_expected = atoi(value);
        else if (!strcmp(name, "--model")) model = value;
        else if (!strcmp(name, "--body")) file = value;
        else if (!strcmp(name, "--timeout")) idle_limit_s = atof(value);
        else if (!strcmp(name, "--header")) {
            size_t at = strlen(headers);
            snprintf(headers + at, sizeof headers - at, "%s\r\n", value);
        } else {
            fprintf(stderr, "loadgen: what is %s?\n", argv[i - 1]);
            exit(2);
        }
    }
    build_request(path, headers, model, file);
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ep = epoll_create1(0);
    conns = calloc((size_t)connections, sizeof *conns);
    free_list = malloc((size_t)connections * sizeof *free_list);
    if (!conns || !free_list) return 1;
    for (int i = connections - 1; i >= 0; i--) {
        conns[i].fd = -1;
        free_list[free_count++] = i;
    }
    start_ns = now_ns();
    print_results(run());
    return 0;
}
