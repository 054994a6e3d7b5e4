/* nng as its examples have it: a loop of blocking calls on REP, PULL or PUSH, over its own threads.
 *
 *     echo_nng echo|sink|source ADDRESS PORT MESSAGE_BYTES
 */
#define _GNU_SOURCE
#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <nng/protocol/reqrep0/rep.h>

#include "common.h"

static void check(int code, const char *what) {
    if (code == 0)
        return;
    fprintf(stderr, "%s: %s\n", what, nng_strerror(code));
    exit(1);
}

int main(int count, char **words) {
    if (count != 5)
        return fprintf(stderr, "echo_nng echo|sink|source ADDRESS PORT MESSAGE_BYTES\n"), 2;
    char mode = words[1][0] == 's' ? words[1][1] : words[1][0]; /* e, i, o */
    size_t message_bytes = strtoull(words[4], NULL, 10);
    char url[64];
    snprintf(url, sizeof url, "tcp://%s:%s", words[2], words[3]);
    nng_socket server;
    check(mode == 'e' ? nng_rep0_open(&server) : mode == 'i' ? nng_pull0_open(&server) : nng_push0_open(&server),
          "open");
    check(nng_listen(server, url, NULL, 0), "nng_listen");
    start_answering();
    nng_msg *message;
    while (mode == 'o') {
        check(nng_msg_alloc(&message, message_bytes), "nng_msg_alloc");
        memset(nng_msg_body(message), 7, message_bytes);
        check(nng_sendmsg(server, message, 0), "nng_sendmsg");
        count_messages(1);
    }
    for (;;) {
        check(nng_recvmsg(server, &message, 0), "nng_recvmsg");
        count_messages(1);
        if (mode == 'e')
            check(nng_sendmsg(server, message, 0), "nng_sendmsg");
        else
            nng_msg_free(message);
    }
}
