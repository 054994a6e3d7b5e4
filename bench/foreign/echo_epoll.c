/* The bare server: one epoll loop, one buffer, no messages but bytes.
 *
 *     echo_epoll echo|sink|source ADDRESS PORT MESSAGE_BYTES
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common.h"

enum { BUFFER_BYTES = 64 * 1024, EVENTS = 1024, BACKLOG = 1024 };

static char buffer[BUFFER_BYTES];
static uint64_t message_bytes, bytes_done;

static void count_bytes(ssize_t len) {
    uint64_t before = bytes_done / message_bytes;
    bytes_done += (uint64_t)len;
    count_messages(bytes_done / message_bytes - before);
}

/* An echo of this size never fills a socket that is read: what cannot be written ends the server, and is seen. */
static void write_all(int peer, const char *bytes, ssize_t len) {
    while (len > 0) {
        ssize_t written = send(peer, bytes, (size_t)len, MSG_NOSIGNAL);
        if (written < 0 && errno != EAGAIN)
            return;
        if (written > 0) {
            bytes += written;
            len -= written;
        }
    }
}

static void serve(int peer, char mode) {
    ssize_t len;
    if (mode == 'o') { /* source */
        len = send(peer, buffer, BUFFER_BYTES / message_bytes * message_bytes, MSG_NOSIGNAL);
        if (len > 0)
            count_bytes(len);
        else if (errno != EAGAIN)
            close(peer);
        return;
    }
    len = recv(peer, buffer, BUFFER_BYTES, 0);
    if (len == 0 || (len < 0 && errno != EAGAIN))
        close(peer);
    else if (len > 0 && mode == 'e')
        write_all(peer, buffer, len);
    else if (len > 0)
        count_bytes(len);
}

int main(int count, char **words) {
    if (count != 5)
        return fprintf(stderr, "echo_epoll echo|sink|source ADDRESS PORT MESSAGE_BYTES\n"), 2;
    char mode = words[1][0] == 's' ? words[1][1] : words[1][0]; /* e, i, o */
    message_bytes = strtoull(words[4], NULL, 10);
    struct sockaddr_in place = place_of(words[2], words[3]);
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&place, sizeof place) != 0 || listen(listener, BACKLOG) != 0)
        die("listen");
    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    start_answering();
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS, -1);
        for (int index = 0; index < ready; index++) {
            int peer = events[index].data.fd;
            if (peer != listener) {
                serve(peer, mode);
                continue;
            }
            while ((peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                set_no_delay(peer);
                event = (struct epoll_event){.events = mode == 'o' ? EPOLLOUT : EPOLLIN, .data.fd = peer};
                epoll_ctl(poll, EPOLL_CTL_ADD, peer, &event);
            }
        }
    }
}
