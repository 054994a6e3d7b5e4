/* How a message of each server looks on TCP, and what is said before the first. An answer to an echo is as its request.
 *
 *     raw       the payload
 *     length    its length in 2 bytes, big-endian, and the payload
 *     zmq-*     ZMTP 3.0 (rfc.zeromq.org/spec/23), mechanism NULL; a request begins with an empty frame
 *     nng-*     SP over TCP (nanomsg/rfcs, sp-tcp-mapping-01); a request begins with its number
 */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>

#include "common.h"

struct wire {
    const char *name;
    /* What we say that we are: a socket type of ZMTP, or a number of SP. */
    const char *zmq_type;
    unsigned char sp_number;
    bool is_length;
};

static const struct wire wires[] = {
    {.name = "raw"},
    {.name = "length", .is_length = true},
    {.name = "zmq-echo", .zmq_type = "REQ"},
    {.name = "zmq-sink", .zmq_type = "PUSH"},
    {.name = "zmq-source", .zmq_type = "PULL"},
    {.name = "nng-echo", .sp_number = 0x30},
    {.name = "nng-sink", .sp_number = 0x50},
    {.name = "nng-source", .sp_number = 0x51},
};

static const struct wire *wire_of(const char *name) {
    for (size_t index = 0; index < sizeof wires / sizeof *wires; index++)
        if (strcmp(wires[index].name, name) == 0)
            return &wires[index];
    fprintf(stderr, "no such wire: %s\n", name);
    exit(2);
}

static void put_big_endian(unsigned char *out, uint64_t number, int width) {
    for (int at = 0; at < width; at++)
        out[at] = (unsigned char)(number >> (8 * (width - 1 - at)));
}

/* Writes one message with `bytes` of payload; returns its length on the wire. */
static size_t compose(const struct wire *wire, unsigned char *out, size_t bytes) {
    size_t len = 0;
    bool is_request = strstr(wire->name, "echo") != NULL;
    if (wire->is_length) {
        put_big_endian(out, bytes, 2);
        len = 2;
    } else if (wire->zmq_type) {
        if (is_request) {
            out[len++] = 1; /* more follows */
            out[len++] = 0;
        }
        if (bytes < 256) {
            out[len++] = 0;
            out[len++] = (unsigned char)bytes;
        } else {
            out[len++] = 2; /* long */
            put_big_endian(out + len, bytes, 8);
            len += 8;
        }
    } else if (wire->sp_number) {
        put_big_endian(out, bytes + (is_request ? 4 : 0), 8);
        len = 8;
        if (is_request) {
            put_big_endian(out + len, 0x80000001, 4);
            len += 4;
        }
    }
    memset(out + len, 7, bytes);
    return len + bytes;
}

static void send_whole(int socket, const void *bytes, size_t len) {
    if (send(socket, bytes, len, MSG_NOSIGNAL) != (ssize_t)len)
        die("send");
}

static void receive_whole(int socket, void *bytes, size_t len) {
    if (recv(socket, bytes, len, MSG_WAITALL) != (ssize_t)len)
        die("the server closed, or failed");
}

/* What both sides say before the first message, on a blocking socket. */
static void greet(const struct wire *wire, int socket) {
    unsigned char said[64] = {0}, heard[256];
    if (wire->zmq_type) {
        said[0] = 0xff, said[9] = 0x7f, said[10] = 3;
        memcpy(said + 12, "NULL", 4);
        send_whole(socket, said, 64);
        receive_whole(socket, heard, 64);
        size_t type_len = strlen(wire->zmq_type), len = 0;
        unsigned char ready[64];
        ready[len++] = 4; /* a command */
        ready[len++] = (unsigned char)(6 + 12 + 4 + type_len);
        len += (size_t)sprintf((char *)ready + len, "\005READY\013Socket-Type");
        put_big_endian(ready + len, type_len, 4);
        len += 4;
        memcpy(ready + len, wire->zmq_type, type_len);
        send_whole(socket, ready, len + type_len);
        receive_whole(socket, heard, 2);
        receive_whole(socket, heard + 2, heard[1]);
        if (heard[0] != 4 || memcmp(heard + 2, "\005READY", 6) != 0)
            die("the server is not ready");
    } else if (wire->sp_number) {
        memcpy(said, "\0SP\0", 4);
        said[5] = wire->sp_number;
        send_whole(socket, said, 8);
        receive_whole(socket, heard, 8);
    }
}

#endif
