/* libzmq as its guide has it: one I/O thread, and a loop of blocking calls on REP, PULL or PUSH.
 *
 *     echo_zmq echo|sink|source ADDRESS PORT MESSAGE_BYTES
 */
#define _GNU_SOURCE
#include <zmq.h>

#include "common.h"

int main(int count, char **words) {
    if (count != 5)
        return fprintf(stderr, "echo_zmq echo|sink|source ADDRESS PORT MESSAGE_BYTES\n"), 2;
    char mode = words[1][0] == 's' ? words[1][1] : words[1][0]; /* e, i, o */
    size_t message_bytes = strtoull(words[4], NULL, 10);
    char url[64];
    snprintf(url, sizeof url, "tcp://%s:%s", words[2], words[3]);
    void *context = zmq_ctx_new();
    void *server = zmq_socket(context, mode == 'e' ? ZMQ_REP : mode == 'i' ? ZMQ_PULL : ZMQ_PUSH);
    if (zmq_bind(server, url) != 0)
        die("zmq_bind");
    start_answering();
    zmq_msg_t message;
    while (mode == 'o') {
        zmq_msg_init_size(&message, message_bytes);
        memset(zmq_msg_data(&message), 7, message_bytes);
        if (zmq_msg_send(&message, server, 0) < 0)
            die("zmq_msg_send");
        count_messages(1);
    }
    zmq_msg_init(&message);
    for (;;) {
        if (zmq_msg_recv(&message, server, 0) < 0)
            die("zmq_msg_recv");
        count_messages(1);
        if (mode == 'e' && zmq_msg_send(&message, server, 0) < 0)
            die("zmq_msg_send");
    }
}
