/* The load of all servers: opens connections, then does what each line of stdin says, and answers it with one line.
 *
 *     generator WIRE ADDRESS PORT PAYLOAD_BYTES CONNECTIONS
 *       echo ACTIVE SECONDS    so many connections ask, each again when it is answered
 *       pump SECONDS           one connection sends whatever its socket takes
 *       drink SECONDS          one connection receives whatever comes
 *
 * A single connection is asked by blocking calls, many by epoll. Every connection of an echo has been answered once
 * before `ready` is said, so that nobody waits in the server's backlog when it is measured.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common.h"
#include "histogram.h"
#include "wire.h"

enum { BLOCK_BYTES = 64 * 1024, MESSAGE_MAX = 16 * 1024, EVENTS = 1024 };
/* Measured is what comes after the first part of the time. */
static const double WARM_UP = 0.2;
/* Who is not answered for so long never is. */
static const uint64_t PATIENCE_NANOS = 20ull * 1000 * 1000 * 1000;

struct connection {
    int socket;
    size_t received; /* bytes of the answer so far */
    uint64_t asked;  /* when */
    bool is_waiting;
};

static struct connection *connections;
static size_t connection_count;
static unsigned char message[MESSAGE_MAX], scratch[BLOCK_BYTES];
static size_t message_len;

static void ask(struct connection *one) {
    one->asked = nanos_now();
    one->received = 0;
    one->is_waiting = true;
    send_whole(one->socket, message, message_len);
}

/* One connection: a blocking call to send and one to receive. */
static void echo_one(struct histogram *times, uint64_t from, uint64_t until) {
    for (uint64_t now = nanos_now(); now < until;) {
        send_whole(connections->socket, message, message_len);
        receive_whole(connections->socket, scratch, message_len);
        uint64_t answered = nanos_now();
        if (now >= from)
            add_to_histogram(times, answered - now);
        now = answered;
    }
}

/* Many: every one that is answered asks again, until the time is over and all are answered. */
static void echo_many(struct histogram *times, size_t active, uint64_t from, uint64_t until) {
    struct epoll_event events[EVENTS];
    int poll = epoll_create1(EPOLL_CLOEXEC);
    size_t waiting = active;
    for (size_t index = 0; index < active; index++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connections + index};
        fcntl(connections[index].socket, F_SETFL, O_NONBLOCK);
        epoll_ctl(poll, EPOLL_CTL_ADD, connections[index].socket, &event);
    }
    for (size_t index = 0; index < active; index++)
        ask(connections + index);
    while (waiting > 0) {
        int ready = epoll_wait(poll, events, EVENTS, 1000);
        if (nanos_now() > until + PATIENCE_NANOS)
            die("some are not answered");
        for (int index = 0; index < ready; index++) {
            struct connection *one = events[index].data.ptr;
            ssize_t len = recv(one->socket, scratch, message_len - one->received, 0);
            if (len == 0 || (len < 0 && errno != EAGAIN))
                die("the server closed, or failed");
            one->received += len > 0 ? (size_t)len : 0;
            if (one->received < message_len || !one->is_waiting)
                continue;
            uint64_t now = nanos_now();
            if (now >= from && now < until)
                add_to_histogram(times, now - one->asked);
            one->is_waiting = false;
            if (now < until)
                ask(one);
            else
                waiting--;
        }
    }
    close(poll);
    for (size_t index = 0; index < active; index++)
        fcntl(connections[index].socket, F_SETFL, 0);
}

static void echo(size_t active, double seconds) {
    static struct histogram times;
    clear_histogram(&times);
    uint64_t begin = nanos_now(), until = begin + (uint64_t)(seconds * 1e9);
    uint64_t from = begin + (uint64_t)(seconds * WARM_UP * 1e9);
    if (connection_count == 1)
        echo_one(&times, from, until);
    else
        echo_many(&times, active < connection_count ? active : connection_count, from, until);
    printf("{\"requests\":%" PRIu64 ",\"seconds\":%.6f,\"p50_nanos\":%" PRIu64 ",\"p99_nanos\":%" PRIu64
           ",\"max_nanos\":%" PRIu64 "}\n",
           times.count, (double)(until - from) * 1e-9, quantile(&times, 0.5), quantile(&times, 0.99), times.max);
}

/* Whole messages in large writes; what the server counts is what counts. */
static void pump(double seconds) {
    uint64_t until = nanos_now() + (uint64_t)(seconds * 1e9), sent = 0;
    size_t len = 0, at = 0;
    while (len + message_len <= BLOCK_BYTES) {
        memcpy(scratch + len, message, message_len);
        len += message_len;
    }
    while (nanos_now() < until || at > 0) {
        ssize_t written = send(connections->socket, scratch + at, len - at, MSG_NOSIGNAL);
        if (written < 0)
            die("send");
        sent += (uint64_t)written;
        at = (at + (size_t)written) % len;
    }
    printf("{\"requests\":%" PRIu64 ",\"seconds\":%.6f}\n", sent / message_len, seconds);
}

static void drink(double seconds) {
    uint64_t begin = nanos_now(), until = begin + (uint64_t)(seconds * 1e9), received = 0, now = begin;
    uint64_t from = begin + (uint64_t)(seconds * WARM_UP * 1e9), first = 0;
    while ((now = nanos_now()) < until) {
        ssize_t len = recv(connections->socket, scratch, BLOCK_BYTES, 0);
        if (len <= 0)
            die("the server closed, or failed");
        if (first != 0)
            received += (uint64_t)len;
        else if (now >= from)
            first = now;
    }
    printf("{\"requests\":%" PRIu64 ",\"seconds\":%.6f}\n", received / message_len, (double)(now - first) * 1e-9);
}

static void open_all(const struct wire *wire, const char *address, const char *port) {
    struct sockaddr_in place = place_of(address, port);
    for (size_t index = 0; index < connection_count; index++) {
        struct connection *one = connections + index;
        one->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (one->socket < 0 || connect(one->socket, (struct sockaddr *)&place, sizeof place) != 0)
            die("connect");
        set_no_delay(one->socket);
        greet(wire, one->socket);
        if (strstr(wire->name, "-s") == NULL && message_len > 0 && connection_count > 1) {
            send_whole(one->socket, message, message_len);
            receive_whole(one->socket, scratch, message_len);
        }
    }
}

int main(int count, char **words) {
    if (count != 6)
        return fprintf(stderr, "generator WIRE ADDRESS PORT PAYLOAD_BYTES CONNECTIONS\n"), 2;
    const struct wire *wire = wire_of(words[1]);
    size_t payload = strtoull(words[4], NULL, 10), active;
    connection_count = strtoull(words[5], NULL, 10);
    connections = calloc(connection_count, sizeof *connections);
    if (payload + 64 > MESSAGE_MAX || connections == NULL)
        return fprintf(stderr, "too many bytes or connections\n"), 2;
    message_len = compose(wire, message, payload);
    open_all(wire, words[2], words[3]);
    printf("\"ready\"\n");
    fflush(stdout);
    char line[128];
    double seconds;
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "echo %zu %lf", &active, &seconds) == 2)
            echo(active, seconds);
        else if (sscanf(line, "pump %lf", &seconds) == 1)
            pump(seconds);
        else if (sscanf(line, "drink %lf", &seconds) == 1)
            drink(seconds);
        else
            return fprintf(stderr, "no such order: %s", line), 2;
        fflush(stdout);
    }
    return 0;
}
