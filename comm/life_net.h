/* SPDX-License-Identifier: Apache-2.0 */
/* life_net.h - inside comm: the lifeline's frames and how ranks come to their connections. */
#ifndef COMM_LIFE_NET_H
#define COMM_LIFE_NET_H

#include <stdint.h>

#include "comm/group.h"

#define COMM_LIFE_TOKEN 16
#define COMM_LIFE_ADDRS 16

typedef enum comm_frame_kind {
    COMM_FRAME_HELLO = 1, /* text: the token, then the host's name; code: pid */
    COMM_FRAME_WELCOME,   /* from rank 0: everybody is there */
    COMM_FRAME_BEAT,
    COMM_FRAME_LOST, /* from rank 0: `rank` is lost, text says why */
    COMM_FRAME_FAIL, /* to rank 0: the sender gives up, text says why */
    COMM_FRAME_BYE   /* the sender leaves in order */
} comm_frame_kind;

/* Everything that travels, in the byte order of the machine: ranks run the same binary. */
typedef struct comm_frame {
    uint32_t magic;
    uint16_t kind;
    uint16_t in_step;
    int32_t rank, code;
    uint64_t step, done, stirs;
    char text[192]; /* NUL-terminated, but for HELLO's token */
} comm_frame;

_Static_assert(sizeof(comm_frame) == 232, "frames go over the wire");

#define COMM_FRAME_MAGIC 0x3146494cu

/* A connection that reads and writes whole frames without ever blocking. */
typedef struct comm_wire {
    int fd; /* -1: none */
    size_t got, left;
    comm_frame in;
    char out[2 * sizeof(comm_frame)]; /* [left] what the peer has not taken yet */
} comm_wire;

typedef enum comm_wire_state {
    COMM_WIRE_NOTHING,
    COMM_WIRE_FRAME,
    COMM_WIRE_CLOSED
} comm_wire_state;

void comm_wire_open(comm_wire *w, int fd);
void comm_wire_close(comm_wire *w);
/* The next frame in w->in, when one is there.  A frame that is not ours closes. */
comm_wire_state comm_wire_read(comm_wire *w);
/* Sends, or keeps what the peer has no room for; false: dropped, the peer takes nothing. */
bool comm_wire_write(comm_wire *w, const comm_frame *f);

/* Collective: wires[r] on rank 0 leads to rank r, on the others wires[0] to rank 0.  hosts[r] and pids[r] on rank 0, of
 * rank 0 on the others.  deadline_ns bounds it. */
typedef struct comm_life_places {
    char host[COMM_RANKS_MAX][64];
    int pid[COMM_RANKS_MAX];
} comm_life_places;

TP_MUST_USE tp_status comm_life_join(comm_wire *wires, comm_life_places *places,
                                     const comm_world *world, int64_t deadline_ns);

#endif
