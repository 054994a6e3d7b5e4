/* What every server and the generator share: a clock, and the answer to who asks what a server has done. */
#ifndef COMMON_H
#define COMMON_H

#include <arpa/inet.h>
#include <inttypes.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* Messages that this process has received or sent; one thread writes it. */
static _Atomic uint64_t messages_done;

static inline void count_messages(uint64_t more) {
    uint64_t done = atomic_load_explicit(&messages_done, memory_order_relaxed);
    atomic_store_explicit(&messages_done, done + more, memory_order_relaxed);
}

static inline uint64_t nanos_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

__attribute__((noreturn, unused)) static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Answers every line of stdin with what was done until now, and ends the process with stdin. */
static void *answer_lines(void *unused) {
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        struct mallinfo2 heap = mallinfo2();
        printf("{\"messages\":%" PRIu64 ",\"nanos\":%" PRIu64 ",\"heap_bytes\":%zu}\n",
               atomic_load_explicit(&messages_done, memory_order_relaxed), nanos_now(), heap.uordblks + heap.hblkhd);
        fflush(stdout);
    }
    exit(0);
    return unused;
}

__attribute__((unused)) static void start_answering(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, answer_lines, NULL) != 0)
        die("pthread_create");
}

__attribute__((unused)) static struct sockaddr_in place_of(const char *address, const char *port) {
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, address, &place.sin_addr) != 1)
        die("address");
    return place;
}

__attribute__((unused)) static void set_no_delay(int socket) {
    int on = 1;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

#endif
